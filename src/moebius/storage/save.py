"""Mixtures to disk: a file of tensors, whose header holds the Spec. Nothing is pickled."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, distributed, nn

from moebius import __version__
from moebius.kit.errors import ArgumentError
from moebius.kit.files import atomic_path, write_json
from moebius.kit.seals import SEAL
from moebius.storage.header import KEY, SCHEMA
from moebius.storage.spec import Spec, describe
from moebius.storage.tensors import stored_tensors, tensor_holders


def save(model: nn.Module, path: str | Path, spec: Spec | None = None, data: Mapping[str, Any] | None = None) -> None:
    """Write a mixture, or a module that holds some, into a folder.

    `model.safetensors` holds the tensors, and in its header the Spec of the parts; `model.json` is a copy of the header
    for people. The tensors have the names of the state dict, each expert's its own, whatever the execution; a part that
    is used twice is stored once. Parts of a known kind (a room's, another distribution's, or one that `mb.register`
    named) are written as kind and arguments. Other modules and functions are not: `load` receives them again, and reads
    their tensors from the file. A folder that holds a saved mixture already holds the old or the new one at every
    moment, also after a crash. Equal models give equal bytes.

    A model whose experts are on several processes, or that FSDP2 shards, is written whole, by the first process; all of
    them have to call `save`, and any number of processes loads it.

    Not kept: which parameters want gradients (a frozen `Adapter` is frozen again), hooks, and an execution that is of
    no known kind.

    Arguments:
        model: a mixture, a subclass of one, a layer, or any module, on any device.
        path: the folder, which is made where it is missing.
        spec: the Spec that the model was built from; unless given, the model is described.
        data: plain values about the data that the model was trained on, which are kept beside the Spec. A study's run
            has `classes`, `domains`, `facts` and `precision`.

    Raises:
        ArgumentError: no module, a component that was altered after it was made, a state that is no tensor, or a path
            where something else lies.

    Example:
        >>> import tempfile, torch, moebius as mb
        >>> folder = tempfile.mkdtemp()
        >>> moe = mb.Mixture(mb.gates.Linear(4, 2), [mb.experts.Linear(4, 3), torch.nn.Linear(4, 3)])
        >>> mb.save(moe, folder)
        >>> again = mb.load(folder, experts=[None, torch.nn.Linear(4, 3)])
        >>> torch.equal(again(torch.ones(1, 4)), moe(torch.ones(1, 4)))
        True
    """
    folder = Path(path)
    if not isinstance(model, nn.Module):
        raise ArgumentError("model", "needs a module", type(model).__name__, "mb.save(moe, path)")
    with _whole(model) as is_writer:
        if is_writer:
            _write(model, folder, spec, data)


def _whole(model: nn.Module) -> AbstractContextManager[bool]:
    """A block in which the process that writes has the whole model; it yields whether this process does."""
    if distributed.is_available() and distributed.is_initialized():
        from moebius.distributed._whole_model import is_split, whole_model

        if is_split(model):
            return whole_model(model)
    return nullcontext(True)


def _write(model: nn.Module, folder: Path, spec: Spec | None, data: Mapping[str, Any] | None) -> None:
    if folder.is_file() or (folder / "result.json").exists():
        rule = "needs a folder of its own, and a file or a study's run is there"
        raise ArgumentError("path", rule, str(folder), f"mb.save(moe, {str(folder) + '-mixture'!r})")
    aliases = _aliases(model)
    spec, tensors = describe(model, "experts") if spec is None else spec, _without_overlap(stored_tensors(model))
    header = {"schema": SCHEMA, "moebius": __version__, "spec": spec, "aliases": aliases}
    header |= {} if data is None else {"data": data}
    with atomic_path(folder / "model.safetensors", seal=True) as temporary:
        # One entry: safetensors writes several in any order, and equal models give equal bytes.
        save_file(tensors, temporary, {KEY: json.dumps({"digest": SEAL, **header}, allow_nan=False)})
    write_json(folder / "model.json", header)


def _aliases(model: nn.Module) -> dict[str, str]:
    """Each further name of a tensor that has several → the first, under which it is stored."""
    first_names: dict[tuple[int, int | None], str] = {}
    aliases = {}
    for name, (tensor, number) in tensor_holders(model).items():
        if not isinstance(tensor, Tensor):
            fix = "a module whose get_extra_state gives tensors or nothing"
            raise ArgumentError(name, "needs to be a tensor, for nothing is pickled", type(tensor).__name__, fix)
        first = first_names.setdefault((id(tensor), number), name)
        if first != name:
            aliases[name] = first
    return aliases


def _without_overlap(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, none sharing memory with another: the file's format has no views that overlap."""
    ranges: dict[int, list[tuple[int, int]]] = {}
    separate = {}
    for name, tensor in tensors.items():
        neighbours = ranges.setdefault(tensor.untyped_storage().data_ptr(), [])
        begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        overlaps = any(begin < other_end and other_begin < end for other_begin, other_end in neighbours)
        separate[name] = tensor.clone() if overlaps else tensor
        neighbours.append((begin, end))
    return separate
