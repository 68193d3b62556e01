"""The header of a saved model: what `save` writes beside the tensors, in one entry of the file's metadata."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from moebius import __version__
from moebius.kit.commands import move_aside
from moebius.kit.errors import DamagedFileError, DataError
from moebius.kit.files import read_json
from moebius.kit.seals import check_seal

SCHEMA = 2
# The entry of the metadata of model.safetensors.
KEY = "moebius"


def read_header(folder: Path) -> dict[str, Any]:
    """The header of the model that a folder holds; the whole file is checked.

    Returns:
        `schema`, `moebius` (the version that wrote it), `spec`, `aliases` (further name of a tensor → the name that it
        is stored under) and, for a study's run, `data`: `classes`, `domains`, `facts`,
        `precision`.

    Raises:
        DataError: no model is there, or it is damaged, made by a later version, or a run of moebius 0.1.
    """
    path = folder / "model.safetensors"
    try:
        check_seal(path)
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
        header = _read_first_form(folder) if text is None else json.loads(text)
        header.pop("digest", None)
        _check_form(header)
        schema = header["schema"]
    except FileNotFoundError:
        rule = f"{folder}: holds no saved mixture (no model.safetensors with a header of moebius)"
        raise DataError(rule, f"mb.save(moe, {str(folder)!r})") from None
    except DamagedFileError as error:
        raise DataError(f"{path}: is damaged ({error.reason})", fix_for(folder)) from None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: is damaged ({error})", fix_for(folder)) from None
    if schema > SCHEMA:
        rule = f"is of schema {schema}, written by moebius {header['moebius']}, and {__version__} reads {SCHEMA}"
        raise DataError(f"{path}: {rule}", "pip install --upgrade moebius")
    return header


def fix_for(folder: Path) -> str:
    """The fix for a folder that is damaged."""
    path, result = folder / "model.safetensors", folder / "result.json"
    if result.exists():
        return f"{move_aside(path, result)}    # then run the study again: the run writes both anew"
    return f"a copy of the folder, or mb.save(moe, {str(folder) + '-2'!r}) where the mixture still is"


def _check_form(header: Any) -> None:
    if header["schema"] > SCHEMA:
        return
    forms = {"schema": int, "moebius": str, "spec": dict, "mixture": dict, "aliases": dict, "data": dict}
    for key, form in forms.items():
        if key in header and type(header[key]) is not form:
            raise TypeError(f"{key} of its header is of type {type(header[key]).__name__}")
    if not all(isinstance(name, str) for name in header["aliases"].values()):
        raise TypeError("aliases of its header are no names")
    if "spec" not in header and "mixture" not in header:
        raise KeyError("spec")


def _read_first_form(folder: Path) -> dict[str, Any]:
    """The header as moebius 0.1 wrote it, in model.json, with the hash of the whole file."""
    header = read_json(folder / "model.json")
    if "mixture" not in header:
        rule = f"{folder}: is a study's run of moebius 0.1, whose form this version does not read"
        fix = f"pip install 'moebius==0.1.*', then mb.save(mb.load({str(folder)!r}), {str(folder) + '-mixture'!r})"
        raise DataError(rule, fix)
    with (folder / "model.safetensors").open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != header["sha256"]:
            raise ValueError("it is not the file that model.json beside it was written with")
    return {**header, "spec": header["mixture"]}
