"""The command line that runs a study again."""

import shlex
from collections.abc import Mapping
from typing import Any

# In place of a folder of this machine.
DATA_DIR = "DATA_DIR"


def run_command(about: Mapping[str, Any]) -> str:
    """The command as it was given, with a placeholder for the folder of the data; an empty text without one.

    Arguments:
        about: content of study.json. One without `command`, of an earlier version, gives its recipe, preset, values and
            number of seeds.

    Example:
        >>> run_command({"reference": "quickstart", "overrides": ["training.epochs=1"], "recipe": {"seeds": 3}})
        'moebius run quickstart training.epochs=1 --seeds 3'
    """
    if "command" in about:
        return shlex.join(map(str, about["command"] or ()))
    reference = about.get("reference") or about.get("study")
    # `mb.fit` is no command.
    if not reference or reference == "mb.fit":
        return ""
    words = ["moebius", "run", str(reference)]
    words += ["--preset", str(about["preset"])] if about.get("preset") else []
    words += [str(override) for override in about.get("overrides") or ()]
    seeds = (about.get("recipe") or {}).get("seeds")
    words += ["--seeds", str(seeds)] if seeds else []
    words += [word for plugin in about.get("plugins") or () for word in ("--plugin", str(plugin["file"]))]
    return shlex.join(words)
