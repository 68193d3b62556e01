"""Loads a recipe: the file, then a preset, then overrides, then the number of seeds."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moebius.kit.errors import RecipeError, UnknownKindError
from moebius.kit.registry import did_you_mean
from moebius.lab.checks.problems import Path as Keys
from moebius.lab.checks.problems import Problem, inner_mapping
from moebius.lab.recipe.check import check_recipe
from moebius.lab.recipe.overrides import assign_value, parse_key, parse_override
from moebius.lab.recipe.schema import Recipe
from moebius.lab.recipe.shipped import find_recipe, read_recipe
from moebius.lab.yaml_text import copy_plain

# Each is checked whenever the recipe is read.
MOST_PRESETS = 100


def load_recipe(
    recipe: Mapping[str, Any] | str | Path,
    overrides: Sequence[str] = (),
    preset: str | None = None,
    seeds: int | None = None,
) -> Recipe:
    """The validated recipe of this name, file or mapping.

    Arguments:
        recipe: a shipped name (`quickstart`), the path of a YAML file, or what such a file holds: plain values.
        overrides: `key=value` each, with dotted keys and values in YAML (`training.epochs=2`); the last one of a key
            counts.
        preset: name of the recipe's preset that is applied before the overrides.
        seeds: number of seeds in place of the recipe's.

    Raises:
        UnknownKindError: no recipe or no preset has this name.
        RecipeError: the recipe has problems; the error lists all of them, one in each line.

    Example:
        >>> recipe = load_recipe("linear-experts", ["training.epochs=2"])
        >>> recipe.training.epochs, [variant.name for variant in recipe.variants]
        (2, ['single', 'predesigned', 'linear', 'hidden'])
    """
    if isinstance(recipe, Mapping):
        source = "recipe"
        raw = copy_plain(recipe, source)
        reference = f"{raw.get('name', source)}.yaml"
    else:
        path, reference = find_recipe(str(recipe)), str(recipe)
        source = path.name if path.stem == reference else reference
        raw = read_recipe(path, source)
    presets = inner_mapping(raw, "presets")
    if len(presets) > MOST_PRESETS:
        raise RecipeError(source, [f"presets: needs at most {MOST_PRESETS}, got {len(presets):,}"])
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
    lines = [draft.line(problem) for problem in problems]
    lines += [problem.line(note) for problem, note in draft.problems]
    for name in presets:
        lines += [] if name == preset else _preset_lines(raw, presets[name], name)
    if lines or file is None:
        raise RecipeError(source, list(dict.fromkeys(lines)))
    return Recipe(source, reference, file, variants, stages, preset, tuple(overrides))


@dataclass
class _Draft:
    """The plain values of a recipe while a preset and overrides set some of them.

    Arguments:
        raw: the plain values.
        origins: for each value that is set, its path and its origin in words, in order.
        problems: values that could not be set, each with its origin.
    """

    raw: dict[str, Any]
    origins: list[tuple[Keys, str]] = field(default_factory=list)
    problems: list[tuple[Problem, str]] = field(default_factory=list)

    def __post_init__(self):
        self.raw = copy.deepcopy(self.raw)
        variants = self.raw.get("variants")
        if isinstance(variants, dict):
            # A variant `linear:` without a value changes nothing.
            self.raw["variants"] = {name: {} if value is None else value for name, value in variants.items()}

    def set(self, path: Keys, value: Any, origin: str) -> None:
        """Set a value, or note the problem that prevents it."""
        changed = assign_value(self.raw, path, value)
        if isinstance(changed, Problem):
            self.problems.append((changed, f" ({origin})"))
        else:
            self.origins.append((changed, origin))

    def set_all(self, values: Any, preset: str) -> None:
        """Set the values of a preset."""
        for key, value in values.items() if isinstance(values, dict) else ():
            self.set(parse_key(key), value, f"from preset {preset}")

    def override(self, text: str) -> None:
        """Set the value of a text `key=value`."""
        parsed = parse_override(text)
        if isinstance(parsed, Problem):
            self.problems.append((parsed, ""))
        else:
            self.set(*parsed, origin=f"from {text if len(text) <= 200 else text[:199] + '…'}")

    def note(self, path: Keys) -> str:
        """The origin of the value at `path` in brackets; "" where it is the file."""
        origins = [origin for changed, origin in self.origins if path[: len(changed)] == changed]
        return f" ({origins[-1]})" if origins else ""

    def line(self, problem: Problem) -> str:
        """The problem as text; where an override set the value, the fix is an override, too."""
        note = self.note(problem.path)
        # The origin of a preset is its name, that of an override a text with "=".
        return (problem.with_override() if "=" in note else problem).line(note)


def _preset_lines(raw: dict[str, Any], values: Any, name: str) -> Iterable[str]:
    """The problems of a preset that is not applied: its author sees them before a user applies it."""
    draft = _Draft(raw)
    draft.set_all(values, name)
    *_, problems = check_recipe(draft.raw, build=False)
    yield from (problem.line(note) for problem, note in draft.problems)
    yield from (problem.line(note) for problem in problems if (note := draft.note(problem.path)))
