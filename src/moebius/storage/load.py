"""Mixtures from disk: what `save` wrote, or what a study's run trained."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from moebius import __version__
from moebius.core.stack import Stack
from moebius.kit.errors import DataError, MoebiusError, UnknownKindError
from moebius.layers.mixture import Mixture
from moebius.storage._supplied import check_tensors, place_supplied
from moebius.storage.header import fix_for, read_header
from moebius.storage.spec import build, unknown_parts
from moebius.storage.tensors import put_tensors

Model = TypeVar("Model", bound=nn.Module)
# What a component may raise for arguments from a file: of unknown names, beyond all bounds, of parts that do not fit.
_UNMADE = (ArithmeticError, LookupError, MemoryError, RecursionError, RuntimeError, TypeError, ValueError)
# Numbers that no file holds: masks, tables of positions.
_SLACK = 10_000_000
Experts = Sequence[nn.Module | None] | nn.ModuleList | Stack | Mapping[Any, Any]


@overload
def load(path: str | Path, *, model: Model, device: str | torch.device = "cpu") -> Model: ...


@overload
def load(
    path: str | Path,
    gate: nn.Module | None = None,
    experts: Experts | None = None,
    router: nn.Module | None = None,
    combine: Callable[..., Tensor] | None = None,
    device: str | torch.device = "cpu",
) -> Mixture: ...


def load(
    path: str | Path,
    gate: nn.Module | None = None,
    experts: Experts | None = None,
    router: nn.Module | None = None,
    combine: Callable[..., Tensor] | None = None,
    device: str | torch.device = "cpu",
    model: nn.Module | None = None,
) -> nn.Module:
    """Read what `save` wrote, or what a study's run trained; in eval mode, its numbers as they were.

    Parts of a known kind are made anew. Other modules are supplied, freshly made, and filled with the tensors of the
    file; the mixture then holds these very modules. Where an `Adapter` holds such a network, the network is supplied
    in the expert's place.

    Arguments:
        path: the folder.
        gate: where it is of no known kind.
        experts: one entry for each, None where the kind is known; or a mapping from indices, or from the paths of
            parts deeper inside: {2: net, "experts.0.gate": my_gate, "experts.1.transform": my_function}. Of a saved
            `Stack` of experts of no known kind, a stack or a list of them all.
        router: where it is of no known kind.
        combine: where it is of no known kind.
        device: where the mixture shall be.
        model: the whole module, where it is of no known kind itself: a subclass of `Mixture`, a network with mixtures
            inside.

    Returns:
        A mixture; what was saved, where that was another module.

    Raises:
        ArgumentError: a part of no known kind is missing or has other tensors than the file, or one is supplied that
            has no place.
        DataError: no mixture is there, or it is damaged, made by a later version, or a study's run of moebius 0.1.

    Example:
        >>> import tempfile, torch, moebius as mb
        >>> folder = tempfile.mkdtemp()
        >>> def network():
        ...     return torch.nn.Sequential(torch.nn.ReLU(), mb.layers.SparseFFN(4, 8, experts=2, k=1))
        >>> mb.save(network(), folder)
        >>> type(mb.load(folder, model=network())).__name__
        'Sequential'

    For a mixture see `save`.
    """
    folder = Path(path)
    header = read_header(folder)
    parts = {"gate": gate, "router": router, "combine": combine, "": model}
    spec = header["spec"]
    try:
        unknown = dict(unknown_parts(spec))
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _unmakeable(folder, header, error) from error
    supplied = place_supplied(str(path), spec, unknown, experts, parts)
    tensors = _tensors(folder, header)
    try:
        # Making parts draws numbers that are overwritten; who loads a mixture shall not find other ones afterwards.
        with torch.random.fork_rng(devices=()):
            _check_size(folder, spec, supplied, tensors)
            loaded = build(spec, "experts", supplied)
    except MoebiusError as error:
        if not isinstance(error, UnknownKindError):
            raise
        raise _unmakeable(folder, header, error) from error
    except _UNMADE as error:
        raise _unmakeable(folder, header, error) from error
    _check_parts(folder, loaded)
    check_tensors(loaded, tensors, unknown)
    put_tensors(loaded, tensors)
    return loaded.to(device).eval()


def _unmakeable(folder: Path, header: Mapping[str, Any], error: Exception) -> DataError:
    rule = f"moebius {header['moebius']} wrote what {__version__} cannot make"
    fix = "pip install what adds the kind, or mb.register it, before mb.load"
    reason = error.args[0] if error.args else type(error).__name__
    return DataError(f"{folder / 'model.safetensors'}: {rule} ({reason})", fix)


def _check_parts(folder: Path, loaded: nn.Module) -> None:
    for layer in loaded.modules() if isinstance(loaded, nn.Module) else ():
        parts = [layer.gate, layer.router, layer.combine] if isinstance(layer, Mixture) else []
        if not all(map(callable, parts)):
            raise DataError(f"{folder / 'model.safetensors'}: is damaged (a part is no module)", fix_for(folder))
    if not isinstance(loaded, nn.Module):
        raise DataError(f"{folder / 'model.safetensors'}: is damaged (it describes no module)", fix_for(folder))


def _check_size(folder: Path, spec: Any, supplied: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse a description of much larger parts than the file holds tensors of, before anything is allocated."""
    count = sum(tensor.numel() for tensor in tensors.values())
    rule = f"describes larger parts than its {count:,} numbers"
    error = DataError(f"{folder / 'model.safetensors'}: is damaged ({rule})", fix_for(folder))
    if any(copies > max(count, 1000) for copies in _copies(spec)):
        raise error
    if supplied:
        return  # making the parts around them twice would change them
    try:
        with torch.device("meta"):
            draft = build(spec, "experts", {})
    except Exception:  # not every part can be made without numbers; the real one tells what is wrong
        return
    if sum(tensor.numel() for tensor in (*draft.parameters(), *draft.buffers())) > 2 * count + _SLACK:
        raise error


def _copies(spec: Any) -> Iterator[int]:
    """How many experts each stack and each layer of a description has."""
    if isinstance(spec, Mapping):
        yield from (spec[key] for key in ("count", "experts") if isinstance(spec.get(key), int))
        for part in spec.values():
            yield from _copies(part)
    elif isinstance(spec, list):
        for part in spec:
            yield from _copies(part)


def _tensors(folder: Path, header: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors under all their names."""
    path = folder / "model.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: is damaged ({error})", fix_for(folder)) from None
    absent = [first for first in header["aliases"].values() if first not in tensors]
    if absent:
        raise DataError(f"{path}: is damaged (it has no tensor {absent[0]!r:.80})", fix_for(folder))
    return tensors | {name: tensors[first] for name, first in header["aliases"].items()}
