"""Parts that a user supplies to `load`: where each belongs, and whether it fits the file."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from moebius.kit.errors import ArgumentError
from moebius.storage.spec import STACK_OF, join_path
from moebius.storage.tensors import tensor_holders

# The parts of a mixture that `load` has arguments for; "" is the whole module.
ARGUMENTS = ("", "gate", "experts", "router", "combine")


def place_supplied(
    path: str,
    spec: Mapping[str, Any],
    unknown: Mapping[str, str],
    experts: Any,
    parts: Mapping[str, Any],
) -> dict[str, Any]:
    """Place → supplied part, for every part of no known kind.

    Arguments:
        path: the folder, for the line that an error prints.
        spec: of the saved module.
        unknown: place → class of its parts of no known kind.
        experts: as `load` takes them.
        parts: argument of `load` → part.

    Raises:
        ArgumentError: a part is missing, or one is supplied that has no place.
    """
    named = {**parts, **_experts_by_place(experts, spec.get("experts"))}
    supplied = {_place(name, unknown): part for name, part in named.items() if part is not None}
    missing = {place: name for place, name in unknown.items() if place not in supplied}
    if missing:
        places = ", ".join(f"{place or 'model'} ({name})" for place, name in missing.items())
        rule = "modules or functions of no known kind have to be supplied"
        raise ArgumentError(places, rule, None, _complete_call(path, unknown))
    return supplied


def check_tensors(model: nn.Module, tensors: Mapping[str, Tensor], unknown: Mapping[str, str]) -> None:
    """Compare the modules with the file's names and shapes, all of them before one is changed; then take its formats.

    Raises:
        ArgumentError: a module has a tensor that the file lacks, lacks one that the file has, or one of another shape,
            or whole numbers in the place of others.
    """
    holders = tensor_holders(model)
    for name in [*holders, *tensors]:
        place = next((place for place in unknown if name.startswith(join_path(place, ""))), "")
        prefix = join_path(place, "")
        short = name.removeprefix(prefix)
        subject = place or ("model" if "" in unknown else name)
        if name not in holders or name not in tensors:
            owner, lacking = ("file", "module") if name in tensors else ("module", "file")
            names = [holder.removeprefix(prefix) for holder in holders if holder.startswith(prefix)]
            fix = "a module that is made as the saved one was"
            raise ArgumentError(subject, f"the {owner} has a tensor {short}, and the {lacking} has none", names, fix)
        whole, number = holders[name]
        shape = tuple(whole.shape if number is None else whole.shape[1:])
        if shape != tuple(tensors[name].shape):
            rule = f"its tensor {short} has the shape {tuple(tensors[name].shape)} in the file"
            raise ArgumentError(subject, rule, shape, "a module that is made as the saved one was")
        kinds = [tensor.is_floating_point() or tensor.is_complex() for tensor in (whole, tensors[name])]
        if kinds[0] != kinds[1]:
            rule = f"its tensor {short} has the type {tensors[name].dtype} in the file"
            raise ArgumentError(subject, rule, whole.dtype, "a module that is made as the saved one was")
    for name, (whole, _) in holders.items():
        whole.data = whole.data.to(tensors[name].dtype)


def _experts_by_place(experts: Any, described: Any) -> dict[str, Any]:
    if experts is None:
        return {}
    if not isinstance(described, Sequence | Mapping):
        if isinstance(experts, Mapping) and all(isinstance(key, str) for key in experts):
            return dict(experts)
        rule = "needs paths of parts, for what was saved is no mixture"
        raise ArgumentError("experts", rule, type(experts).__name__, 'experts={"path.of.part": module}')
    if isinstance(described, Mapping) and not isinstance(experts, Mapping):
        return {"experts": experts}
    count = len(described)
    if isinstance(experts, Mapping):
        for key in experts:
            if not isinstance(key, str) and key not in range(count):
                fix = "experts={0: net}, by index"
                raise ArgumentError("experts", f"needs indices 0 … {count - 1} or paths", key, fix)
        return {key if isinstance(key, str) else f"experts.{key}": part for key, part in experts.items()}
    if len(experts) != count:
        rule = f"needs an entry for each of the {count} experts, None where the kind is known"
        raise ArgumentError("experts", rule, len(experts), "experts={0: net}, by index")
    return {f"experts.{number}": part for number, part in enumerate(experts)}


def _place(name: str, unknown: Mapping[str, str]) -> str:
    """Where the part that was supplied under this name belongs: there, or to what an adapter there holds."""
    within = [place for place in unknown if place == name or place.startswith(join_path(name, ""))]
    networks = [place for place in within if set(place[len(name) :].split(".")) <= {"", "network"}]
    if networks or len(within) == 1:
        return (networks or within)[0]
    argument = name or "model"
    if within:
        fix = f"experts={{{', '.join(f'{place!r}: …' for place in within)}}}"
        raise ArgumentError(argument, "holds several parts of no known kind: supply each by its path", within, fix)
    rule = "is supplied, and that place needs nothing: it is of a known kind or no part of what was saved"
    fix = f"one of {', '.join(unknown)}" if any(unknown) else "leave it out: every part has a known kind"
    raise ArgumentError(argument, rule, argument, fix)


def _complete_call(path: str, unknown: Mapping[str, str]) -> str:
    """The call of `load` that supplies all that has to be."""
    inner = [place for place in unknown if place not in ARGUMENTS]
    # Experts that are one stack are an entry of the mapping where it is needed for other parts.
    plain = [place for place in unknown if place in ARGUMENTS and not (inner and place == "experts")]
    arguments = [f"{place or 'model'}={_constructor(unknown[place])}" for place in plain]
    entries = []
    for place in (place for place in unknown if place not in plain):
        key = place.removeprefix("experts.").removesuffix(".network")
        entries.append(f"{key if key.isdigit() else repr(place)}: {_constructor(unknown[place])}")
    mapping = ", ".join(entries)
    return f"mb.load({', '.join([repr(path), *arguments, *([f'experts={{{mapping}}}'] if entries else [])])})"


def _constructor(name: str) -> str:
    if name.startswith(STACK_OF):
        return f"mb.Stack([{name.removeprefix(STACK_OF)}(…), …])"
    return f"{name}(…)"
