"""Mixtures on disk: a file of tensors, and one that says of what parts they are. Nothing is pickled."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from moebius import __version__
from moebius.kit.errors import ArgumentError
from moebius.kit.files import atomic_path, write_json
from moebius.layers.mixture import Mixture
from moebius.storage._folder import SCHEMA, digest_of, waiting_path
from moebius.storage.structure import describe_part
from moebius.storage.tensors import stored_tensors, tensor_holders


def save(moe: Mixture, path: str | Path) -> None:
    """Write a mixture into a folder: `model.safetensors` holds its tensors, `model.json` says what it is made of.

    The tensors have the names of the state dict, each expert's its own, whatever the execution; a part that is used
    twice is there once. Parts of a kind that the registry knows are written as kind and arguments. Modules and
    functions of your own are not: `load` is given them again, and their tensors come from the file. A folder that
    holds a saved mixture already holds the old or the new one at every moment, also after a crash.

    Not kept: which parameters want gradients (a frozen `Adapter` is frozen again), hooks, and an execution of your own.

    Arguments:
        moe: the mixture, on any device.
        path: the folder, which is made where it is missing.

    Raises:
        ArgumentError: no mixture, a component that was altered after it was made, a state that is no tensor, or a path
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
    if type(moe) is not Mixture:
        raise ArgumentError("moe", "needs a Mixture itself, not a module around it", type(moe).__name__)
    if folder.is_file() or (folder / "result.json").exists():
        rule = "needs a folder of its own, and a file or a study's run is there"
        raise ArgumentError("path", rule, str(path), f"mb.save(moe, {str(folder) + '-mixture'!r})")
    aliases = _aliases(moe)
    structure, tensors = describe_part(moe), _apart(stored_tensors(moe))
    with atomic_path(folder / ".model.safetensors") as temporary:
        save_file(tensors, temporary, {"format": "pt"})
        digest = digest_of(temporary)
    waiting = (folder / ".model.safetensors").rename(waiting_path(folder, digest))
    # This file makes the new mixture the folder's: until now the old one is whole, and from now on the new tensors are
    # found under their hash until they have their name.
    header = {"schema": SCHEMA, "moebius": __version__, "sha256": digest}
    write_json(folder / "model.json", {**header, "mixture": structure, "aliases": aliases})
    waiting.replace(folder / "model.safetensors")
    for leftover in folder.glob(".*.safetensors"):
        leftover.unlink(missing_ok=True)


def _aliases(moe: Mixture) -> dict[str, str]:
    """Each further name of a tensor that has several → the first, under which it is stored."""
    first: dict[tuple[int, int | None], str] = {}
    aliases = {}
    for name, (tensor, number) in tensor_holders(moe).items():
        if not isinstance(tensor, Tensor):
            raise ArgumentError(name, "needs to be a tensor, for nothing is pickled", type(tensor).__name__)
        known = first.setdefault((id(tensor), number), name)
        if known != name:
            aliases[name] = known
    return aliases


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, none sharing memory with another: the file's format has no views that overlap."""
    taken: dict[int, list[tuple[int, int]]] = {}
    apart = {}
    for name, tensor in tensors.items():
        places = taken.setdefault(tensor.untyped_storage().data_ptr(), [])
        begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        overlaps = any(begin < other_end and other_begin < end for other_begin, other_end in places)
        apart[name] = tensor.clone() if overlaps else tensor
        places.append((begin, end))
    return apart
