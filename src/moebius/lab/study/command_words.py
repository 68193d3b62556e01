"""The words of the command that a study was run with, as `study.json` keeps them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moebius.lab.recipe.schema import Recipe
from moebius.lab.report.command import DATA_DIR

SWEEP = "sweep.keys."


def command_words(recipe: Recipe | Mapping[str, Any] | str | Path, options: Mapping[str, Any]) -> list[str]:
    """`moebius run` with all that the results depend on, in the order of its usage; empty for a recipe without a file.

    Arguments:
        recipe: a name, a path, a loaded recipe, or plain values, which no command can name.
        options: of `moebius.lab.study.run.run`.

    Example:
        >>> command_words("quickstart", {"preset": "quick", "overrides": ["training.epochs=1"], "data_dir": "/data"})
        ['moebius', 'run', 'quickstart', 'training.epochs=1', '--preset', 'quick', '--data-dir', 'DATA_DIR']
    """
    if isinstance(recipe, Mapping):
        return []
    if isinstance(recipe, Recipe):
        name, overrides, preset, seeds = recipe.reference, recipe.overrides, recipe.preset, recipe.seeds
    else:
        name, overrides = str(recipe), options.get("overrides", ())
        preset, seeds = options.get("preset"), options.get("seeds")
    words = ["moebius", "run", name, *(text for text in overrides if not text.startswith(SWEEP))]
    words += [word for text in overrides if text.startswith(SWEEP) for word in ("--sweep", text.removeprefix(SWEEP))]
    values = {"--preset": preset, "--seeds": seeds, "--data-dir": options.get("data_dir") and DATA_DIR}
    values["--nproc"] = options.get("nproc")
    values |= {f"--{name}": options.get(name) for name in ("device", "cohorts") if options.get(name) != "auto"}
    words += [str(word) for flag, value in values.items() if value is not None for word in (flag, value)]
    return words + [str(word) for plugin in options.get("plugins", ()) for word in ("--plugin", plugin)]
