"""Loading a recipe: file, then preset, then overrides, then the number of seeds."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from moebius.kit.errors import RecipeError, UnknownKindError
from moebius.kit.registry import did_you_mean
from moebius.lab.recipe.check import check_recipe
from moebius.lab.recipe.overrides import assign_value, parse_override
from moebius.lab.recipe.problems import Path, Problem, mapping, parse_path
from moebius.lab.recipe.schema import Recipe
from moebius.lab.recipe.shipped import find_recipe, read_recipe


def load_recipe(
    name_or_path: str, overrides: Sequence[str] = (), preset: str | None = None, seeds: int | None = None
) -> Recipe:
    """The validated recipe of this name or file.

    Arguments:
        name_or_path: a shipped name (`quickstart`), or the path of a YAML file.
        overrides: `key=value` each, with dotted keys and values in YAML (`training.epochs=2`); later ones win.
        preset: which of the recipe's presets to apply, before the overrides.
        seeds: number of seeds instead of the recipe's.

    Raises:
        UnknownKindError: no recipe or no preset of this name.
        RecipeError: everything that is wrong with the recipe, one line each.

    Example:
        >>> recipe = load_recipe("linear-experts", ["training.epochs=2"])
        >>> recipe.training.epochs, [variant.name for variant in recipe.variants]
        (2, ['single', 'predesigned', 'linear', 'hidden'])
    """
    path = find_recipe(str(name_or_path))
    source = path.name if path.stem == name_or_path else str(name_or_path)
    raw = read_recipe(path, source)
    presets = mapping(raw, "presets")
    if preset is not None and preset not in presets:
        fix = did_you_mean(preset, presets) if presets else "leave --preset out, the recipe has none"
        raise UnknownKindError(f"no preset of {source} is called {preset!r}", fix)
    draft = _Draft(raw)
    if preset is not None:
        draft.set_all(presets[preset], preset)
    for text in overrides:
        draft.override(text)
    if seeds is not None:
        draft.set(("seeds",), seeds, "--seeds")
    file, variants, stages, problems = check_recipe(draft.raw)
    lines = [problem.line(draft.note(problem.path)) for problem in problems]
    lines += [problem.line(note) for problem, note in draft.problems]
    for name in presets:
        lines += [] if name == preset else _preset_lines(raw, presets[name], name)
    if lines or file is None:
        raise RecipeError(source, list(dict.fromkeys(lines)))
    return Recipe(source, str(name_or_path), file, variants, stages, preset, tuple(overrides))


@dataclass
class _Draft:
    """A recipe's plain values while values are set in them, and who set what."""

    raw: dict[str, Any]
    set_by: list[tuple[Path, str]] = field(default_factory=list)
    problems: list[tuple[Problem, str]] = field(default_factory=list)

    def __post_init__(self):
        self.raw = copy.deepcopy(self.raw)
        variants = self.raw.get("variants")
        if isinstance(variants, dict):
            # `linear:` with nothing behind it is a variant that changes nothing.
            self.raw["variants"] = {name: {} if value is None else value for name, value in variants.items()}

    def set(self, path: Path, value: Any, by: str) -> None:
        changed = assign_value(self.raw, path, value)
        if isinstance(changed, Problem):
            self.problems.append((changed, f" ({by})"))
        else:
            self.set_by.append((changed, by))

    def set_all(self, values: Any, preset: str) -> None:
        for key, value in values.items() if isinstance(values, dict) else ():
            self.set(parse_path(key), value, f"from preset {preset}")

    def override(self, text: str) -> None:
        parsed = parse_override(text)
        if isinstance(parsed, Problem):
            self.problems.append((parsed, ""))
        else:
            self.set(*parsed, by=f"from {text}")

    def note(self, path: Path) -> str:
        """Who set the value at `path`, unless it is the file's own."""
        by = [by for changed, by in self.set_by if path[: len(changed)] == changed]
        return f" ({by[-1]})" if by else ""


def _preset_lines(raw: dict[str, Any], values: Any, name: str) -> Iterable[str]:
    """What is wrong with a preset that is not asked for: its author should hear of it before a user does."""
    draft = _Draft(raw)
    draft.set_all(values, name)
    *_, problems = check_recipe(draft.raw, build=False)
    yield from (problem.line(note) for problem, note in draft.problems)
    yield from (problem.line(note) for problem in problems if (note := draft.note(problem.path)))
