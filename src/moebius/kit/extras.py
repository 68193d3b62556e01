"""The way from the library to the lab: by name, when asked for."""

import importlib
from typing import Any


def lab(module: str, name: str | None = None) -> Any:
    """A module of `moebius.lab` ("" for the lab itself), or what it calls `name`.

    Raises:
        MissingExtraError: the extra `lab` is not installed; the fix is the line that installs it.

    Example:
        >>> lab("training.fit", "fit").__name__
        'fit'
    """
    loaded = importlib.import_module(f"moebius.lab.{module}".rstrip("."))
    return loaded if name is None else getattr(loaded, name)
