"""A module's tensors as files hold them: on the CPU, row-major, and each once, however often a part is used."""

from collections.abc import Mapping

from torch import Tensor, nn

from moebius.core.stack import Stack


def tensor_holders(model: nn.Module) -> dict[str, tuple[Tensor, int | None]]:
    """Name in a list's state dict → the tensor that holds its values, and the expert's number where a stack's does.

    Example:
        >>> list(tensor_holders(Stack([nn.Linear(4, 3, bias=False) for _ in range(2)])))
        ['0.weight', '1.weight']
    """
    holders: dict[str, tuple[Tensor, int | None]] = {
        name: (tensor, None) for name, tensor in model.state_dict(keep_vars=True).items()
    }
    for path, part in model.named_modules(remove_duplicate=False):
        if isinstance(part, Stack):
            before = f"{path}." if path else ""
            whole = {flat: holders.pop(f"{before}{flat}") for flat in part.state_dict()}
            holders |= {
                f"{before}{number}.{name}": (whole[flat][0], number)
                for number in range(len(part))
                for name, flat in part.flat_names.items()
                if flat in whole
            }
    return holders


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Name → tensor of everything in the state dict; of the names of a part that is used twice, the first.

    Example:
        >>> shared = nn.Linear(2, 2, bias=False)
        >>> list(stored_tensors(nn.Sequential(shared, nn.ReLU(), shared)))
        ['0.weight']
    """
    once = {names[0]: tensor for names, tensor in _distinct_tensors(model)}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in once.items()}


def put_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors that `stored_tensors` gave into a model of the same structure.

    Raises:
        RuntimeError: a tensor is missing, has another shape, or belongs to nothing in the model; nothing is changed.
    """
    targets = {names[0]: (names, tensor) for names, tensor in _distinct_tensors(model)}
    sources = {name: name for name in tensors}
    for first, (names, _) in targets.items():
        # A part that was used once when it was stored may be used twice now.
        source = next((name for name in names if name in sources), None)
        if source is None:
            raise RuntimeError(f"no tensor for {first}")
        sources |= dict.fromkeys(names, source)
    unknown = sorted(set(tensors) - {name for names, _ in targets.values() for name in names})
    if unknown:
        raise RuntimeError(f"nothing in the model is called {unknown[0]}")
    for first, (_, tensor) in targets.items():
        if tensors[sources[first]].shape != tensor.shape:
            shapes = f"{tuple(tensors[sources[first]].shape)}, and the model's is {tuple(tensor.shape)}"
            raise RuntimeError(f"{first} has shape {shapes}")
    model.load_state_dict({name: tensors[sources[name]] for name in tensor_holders(model)})


def _distinct_tensors(model: nn.Module) -> list[tuple[list[str], Tensor]]:
    """Every tensor of the state dict with all its names."""
    distinct: dict[tuple[int, int | None], tuple[list[str], Tensor]] = {}
    for name, (whole, number) in tensor_holders(model).items():
        tensor = whole if number is None else whole[number]
        distinct.setdefault((id(whole), number), ([], tensor))[0].append(name)
    return list(distinct.values())
