"""Mixtures from disk: what `save` wrote, or what a study's run trained."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from moebius import __version__
from moebius.core.stack import Stack
from moebius.kit.errors import ArgumentError, DataError
from moebius.kit.extras import lab
from moebius.kit.files import read_json
from moebius.layers.mixture import Mixture
from moebius.storage._folder import SCHEMA, digest_of, waiting_path
from moebius.storage._supplied import check_tensors, place_supplied
from moebius.storage.structure import build_part, unknown_parts
from moebius.storage.tensors import put_tensors

Model = TypeVar("Model", bound=nn.Module)
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
        DataError: no mixture is there, or it is damaged or made by a later version.

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
    description = _read(folder)
    parts = {"gate": gate, "router": router, "combine": combine, "": model}
    if "mixture" not in description:
        if experts is not None or any(part is not None for part in parts.values()):
            fix = f"mb.load({str(path)!r})"
            raise ArgumentError("path", "is a study's run, whose parts are all known", str(path), fix)
        return lab("predict", "load_run")(folder)[0].to(device)
    structure = description["mixture"]
    unknown = dict(unknown_parts(structure))
    supplied = place_supplied(str(path), structure, unknown, experts, parts)
    tensors = _tensors(folder, description)
    try:
        # Making parts draws numbers that are overwritten; who loads a mixture shall not find other ones afterwards.
        with torch.random.fork_rng(devices=()):
            loaded = build_part(structure, "experts", supplied)
    except (LookupError, TypeError) as error:  # a kind, a place or an argument that is not known here
        rule = f"moebius {description['moebius']} wrote what {__version__} cannot make"
        fix = "pip install what adds the kind, or mb.register it, before mb.load"
        raise DataError(f"{folder / 'model.json'}: {rule} ({error.args[0]})", fix) from error
    check_tensors(loaded, tensors, unknown)
    put_tensors(loaded, tensors)
    return loaded.to(device).eval()


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    try:
        description = read_json(path)
        schema = description["schema"]
    except FileNotFoundError:
        raise DataError(f"{folder}: holds no saved mixture (no model.json)", f"mb.save(moe, {str(folder)!r})") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is damaged ({error})", _fix_for(folder)) from None
    if "mixture" in description and schema > SCHEMA:
        rule = f"is of schema {schema}, written by moebius {description['moebius']}, and {__version__} reads {SCHEMA}"
        raise DataError(f"{path}: {rule}", "pip install --upgrade moebius")
    return description


def _tensors(folder: Path, description: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors under all their names."""
    digest, path = description["sha256"], folder / "model.safetensors"
    for candidate in (path, waiting_path(folder, digest)):
        try:
            if digest_of(candidate) == digest:
                tensors = load_file(candidate)
                return tensors | {name: tensors[first] for name, first in description["aliases"].items()}
        except (OSError, SafetensorError):
            continue
    rule = "is missing, damaged, or not the file that model.json beside it was written with"
    raise DataError(f"{path}: {rule}", _fix_for(folder))


def _fix_for(folder: Path) -> str:
    return f"a copy of the folder, or mb.save(moe, {str(folder) + '-2'!r}) where the mixture still is"
