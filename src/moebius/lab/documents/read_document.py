"""Reads a JSON file of a study and checks its form."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from moebius.kit.errors import DamagedFileError
from moebius.kit.files import read_json


def read_document(path: Path, form: type[BaseModel], fix: str | None = None) -> dict[str, Any]:
    """The object in a JSON file, as it stands there.

    Arguments:
        path: of the file.
        form: what it has to look like.
        fix: of the error; None for the command that moves the file aside.

    Raises:
        DamagedFileError: it is no JSON, not what was written, or not of the form.
        OSError: the file cannot be opened.
    """
    try:
        value = read_json(path)
    except DamagedFileError as error:
        raise DamagedFileError(path, error.reason, fix) from None
    check_form(path, value, form, fix)
    return value


def check_form(path: Path, value: Any, form: type[BaseModel], fix: str | None = None) -> None:
    """Check what a file holds.

    Arguments:
        path: of the file.
        value: from the file.
        form: what it has to look like.
        fix: of the error; None for the command that moves the file aside.

    Raises:
        DamagedFileError: the value is not of the form.

    Example:
        >>> from moebius.lab.documents.run_entry import RunEntry
        >>> check_form(Path("result.json"), {"variant": "soft", "seed": "0"}, RunEntry, "a fix")
        Traceback (most recent call last):
        moebius.kit.errors.DamagedFileError: result.json: cannot be read, for it is damaged (seed: Input should be ...
    """
    try:
        form.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        reason = f"{place}: {first['msg']}" if place else first["msg"]
        raise DamagedFileError(path, reason[:300], fix) from None
