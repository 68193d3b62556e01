"""A study from a recipe as Python has it: a mapping, a shipped name or the path of a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from moebius.lab.recipe.load import load_recipe
from moebius.lab.recipe.plugins import load_plugins
from moebius.lab.recipe.schema import Recipe
from moebius.lab.study.cohorts import CohortMode
from moebius.lab.study.run import plan_only, run


def run_recipe(
    recipe: Mapping[str, Any] | str | Path,
    out: Path | str | None = None,
    *,
    preset: str | None = None,
    overrides: Sequence[str] = (),
    seeds: int | None = None,
    data_dir: Path | str | None = None,
    device: str = "auto",
    workers: int | None = None,
    cohorts: CohortMode = "auto",
    stages: Path | str | None = None,
    plugins: Sequence[Path | str] = (),
    console: Console | None = None,
) -> Path:
    """Train what a recipe compares and write results and report, as `moebius run` does; also called `mb.lab.run`.

    Arguments:
        recipe: a mapping with the keys of a recipe's file, a shipped name, or the path of a YAML file.
        out: the study's folder; None for runs/NAME, or runs/NAME-PRESET.
        preset, overrides, seeds: as for `moebius.lab.recipe.load_recipe`.
        data_dir, device, workers, cohorts, console: as for `moebius.lab.study.run`.
        stages: folder of finished stages, read and written; None for `stages` in the study's folder.
        plugins: Python files that register kinds.

    Returns:
        The study's folder: report.html, results.json, and a folder for each run.

    Raises:
        RecipeError: the recipe has problems; the error lists all of them.
        MoebiusError: of any other kind, such as data that cannot be loaded or a folder of another study.

    Example:
        >>> import moebius as mb
        >>> folder = mb.lab.run("quickstart", preset="quick")  # doctest: +SKIP
    """
    loaded, folder, options = _load(recipe, out, preset, overrides, seeds, data_dir, stages, plugins)
    run(loaded, folder, device=device, workers=workers, console=console, cohorts=cohorts, **options)
    return folder


def plan_recipe(
    recipe: Mapping[str, Any] | str | Path,
    out: Path | str | None = None,
    *,
    preset: str | None = None,
    overrides: Sequence[str] = (),
    seeds: int | None = None,
    data_dir: Path | str | None = None,
    stages: Path | str | None = None,
    plugins: Sequence[Path | str] = (),
    **options: Any,
) -> list[Path]:
    """The folders of a study's jobs, each with the `job.json` that `moebius job FOLDER` reads; nothing is trained.

    Arguments:
        recipe, out, preset, overrides, seeds, data_dir, stages, plugins, options: as for `run_recipe`.
    """
    loaded, folder, more = _load(recipe, out, preset, overrides, seeds, data_dir, stages, plugins)
    return plan_only(loaded, folder, **options, **more)


def _load(
    recipe: Mapping[str, Any] | str | Path,
    out: Path | str | None,
    preset: str | None,
    overrides: Sequence[str],
    seeds: int | None,
    data_dir: Path | str | None,
    stages: Path | str | None,
    plugins: Sequence[Path | str],
) -> tuple[Recipe, Path, dict[str, Any]]:
    """The recipe, the study's folder, and arguments of `run`."""
    loaded_plugins = load_plugins(plugins)
    loaded = load_recipe(recipe, overrides, preset, seeds)
    folder = Path(out or Path("runs") / (loaded.name if preset is None else f"{loaded.name}-{preset}"))
    places = {"data_dir": data_dir, "stages_dir": stages}
    paths = {name: None if path is None else Path(path) for name, path in places.items()}
    return loaded, folder, {**paths, "plugins": loaded_plugins}
