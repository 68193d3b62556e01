"""Mixtures from disk: what `save` wrote, or what a study's run trained."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
from moebius.storage.structure import STACK_OF, build_part, join_path, unknown_parts
from moebius.storage.tensors import put_tensors, tensor_holders


def load(
    path: str | Path,
    gate: nn.Module | None = None,
    experts: Sequence[nn.Module | None] | nn.ModuleList | Stack | Mapping[Any, Any] | None = None,
    router: nn.Module | None = None,
    combine: Callable[..., Tensor] | None = None,
    device: str | torch.device = "cpu",
) -> Mixture:
    """Read the mixture that `save` wrote, or that a study's run trained; in eval mode, its numbers as they were.

    Parts of a known kind make themselves. Modules of your own are given, freshly made, and filled with the tensors of
    the file; the mixture then holds these very modules. Where a network of your own is inside an `Adapter`, that
    network is given in the expert's place.

    Arguments:
        path: the folder.
        gate: where it is of your own.
        experts: one entry for each, None where the kind is known; or a mapping from indices, or from the paths of
            parts deeper inside: {2: net, "experts.0.gate": my_gate, "experts.1.transform": my_function}. Of a saved
            `Stack` of your own experts, a stack or a list of them all.
        router: where it is of your own.
        combine: where it is of your own.
        device: where the mixture shall be.

    Raises:
        ArgumentError: a part of your own is missing or has other tensors than the file, or one is given that has no
            place.
        DataError: no mixture is there, or it is damaged or made by a later version.

    Example: see `save`.
    """
    folder = Path(path)
    description = _read(folder)
    if "mixture" not in description:
        if any(part is not None for part in (gate, experts, router, combine)):
            raise ArgumentError(
                "path", "is a study's run, whose parts are all known", str(path), f"mb.load({str(path)!r})"
            )
        return lab("predict", "load_run")(folder)[0].to(device)
    structure = description["mixture"]
    own = dict(unknown_parts(structure))
    wanted = {"gate": gate, "router": router, "combine": combine, **_by_place(experts, structure["experts"])}
    given = {_place(name, own): part for name, part in wanted.items() if part is not None}
    missing = {place: name for place, name in own.items() if place not in given}
    if missing:
        said = ", ".join(f"{place} ({name})" for place, name in missing.items())
        raise ArgumentError(said, "modules or functions of your own have to be given", None, _call(str(path), own))
    tensors = _tensors(folder, description)
    try:
        # Making parts draws numbers that are overwritten; who loads a mixture shall not find other ones afterwards.
        with torch.random.fork_rng(devices=()):
            moe = build_part(structure, "experts", given)
    except (LookupError, TypeError) as error:  # a kind, a place or an argument that is not known here
        made = f"moebius {description['moebius']} wrote what {__version__} cannot make"
        raise DataError(f"{folder / 'model.json'}: {made} ({error.args[0]})") from error
    _fit(moe, tensors, own)
    put_tensors(moe, tensors)
    return moe.to(device).eval()


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    try:
        description = read_json(path)
        schema = description["schema"]
    except FileNotFoundError:
        raise DataError(f"{folder}: holds no saved mixture (no model.json)", f"mb.save(moe, {str(folder)!r})") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is damaged ({error})") from None
    if "mixture" in description and schema > SCHEMA:
        said = f"is of schema {schema}, written by moebius {description['moebius']}, and {__version__} reads {SCHEMA}"
        raise DataError(f"{path}: {said}", "pip install --upgrade moebius")
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
    raise DataError(f"{path}: is missing, damaged, or not the file that model.json beside it was written with")


def _by_place(experts: Any, said: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any]:
    if experts is None:
        return {}
    if isinstance(said, Mapping) and not isinstance(experts, Mapping):
        return {"experts": experts}
    count = len(said)
    if isinstance(experts, Mapping):
        for one in experts:
            if not isinstance(one, str) and one not in range(count):
                raise ArgumentError("experts", f"needs indices 0 … {count - 1} or paths", one)
        return {name if isinstance(name, str) else f"experts.{name}": part for name, part in experts.items()}
    if len(experts) != count:
        rule = f"needs an entry for each of the {count} experts, None where the kind is known"
        raise ArgumentError("experts", rule, len(experts), "experts={0: net}, by index")
    return {f"experts.{number}": part for number, part in enumerate(experts)}


def _place(name: str, own: Mapping[str, str]) -> str:
    """Where the part that was given under this name belongs: there, or to what an adapter there is around."""
    within = [place for place in own if place == name or place.startswith(f"{name}.")]
    networks = [place for place in within if set(place[len(name) :].split(".")) <= {"", "network"}]
    if networks or len(within) == 1:
        return (networks or within)[0]
    if within:
        fix = f"experts={{{', '.join(f'{place!r}: …' for place in within)}}}"
        raise ArgumentError(name, "holds several parts of your own: each is given by its path", within, fix)
    rule = "is given, and that place needs nothing: it makes itself or is none of this mixture's"
    fix = f"one of {', '.join(own)}" if own else "leave it out: no part of this mixture has to be given"
    raise ArgumentError(name, rule, name, fix)


def _call(path: str, own: Mapping[str, str]) -> str:
    """The call that gives all that has to be given."""
    whole = ("gate", "experts", "router", "combine")
    plain = [f"{place}={_made(name)}" for place, name in own.items() if place in whole]
    inner = [(place, name) for place, name in own.items() if place not in whole]
    keys = [place.removeprefix("experts.").removesuffix(".network") for place, _ in inner]
    keys = [key if key.isdigit() else repr(place) for key, (place, _) in zip(keys, inner, strict=True)]
    entries = ", ".join(f"{key}: {_made(name)}" for key, (_, name) in zip(keys, inner, strict=True))
    return f"mb.load({', '.join([repr(path), *plain, *([f'experts={{{entries}}}'] if entries else [])])})"


def _made(name: str) -> str:
    if name.startswith(STACK_OF):
        return f"mb.Stack([{name.removeprefix(STACK_OF)}(…), …])"
    return f"{name}(…)"


def _fit(moe: Mixture, tensors: Mapping[str, Tensor], own: Mapping[str, str]) -> None:
    """Hold the modules to the file's names and shapes, all of them before one is changed; then take its formats."""
    wanted = tensor_holders(moe)
    for name in [*wanted, *tensors]:
        place = next((place for place in own if name.startswith(join_path(place, ""))), "")
        short = name.removeprefix(join_path(place, ""))
        if name not in wanted or name not in tensors:
            here, there = ("file", "module given") if name in tensors else ("module given", "file")
            held = [one.removeprefix(join_path(place, "")) for one in wanted if one.startswith(join_path(place, ""))]
            raise ArgumentError(place or name, f"the {here} has a tensor {short}, and the {there} has none", held)
        whole, number = wanted[name]
        shape = tuple(whole.shape if number is None else whole.shape[1:])
        if shape != tuple(tensors[name].shape):
            rule = f"its tensor {short} has the shape {tuple(tensors[name].shape)} in the file"
            raise ArgumentError(place or name, rule, shape)
    for name, (whole, _) in wanted.items():
        whole.data = whole.data.to(tensors[name].dtype)
