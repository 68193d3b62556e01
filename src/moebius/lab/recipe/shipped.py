"""Finds and reads the files of recipes."""

import shlex
from pathlib import Path
from typing import Any

from moebius.kit.errors import RecipeError, UnknownKindError
from moebius.kit.registry import did_you_mean
from moebius.lab.checks.problems import shortened
from moebius.lab.yaml_text import LONGEST_TEXT, read_yaml

FOLDER = Path(__file__).parent.parent / "recipes"
SUFFIXES = (".yaml", ".yml")


def shipped_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def find_recipe(name_or_path: str) -> Path:
    """The file of a recipe: the shipped one of this name, else the file at this path.

    Raises:
        UnknownKindError: no shipped recipe has this name, and there is no file at this path.

    Example:
        >>> find_recipe("quickstart").name
        'quickstart.yaml'
    """
    if name_or_path in shipped_recipes():
        return FOLDER / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as error:
        fix = f"the path of a YAML file, or one of {', '.join(shipped_recipes())}"
        raise UnknownKindError(f"recipe {shortened(name_or_path)}: {error.strerror}", fix) from None
    if is_file:
        return path
    if path.suffix in SUFFIXES or path.name != name_or_path:
        reason = "is a folder" if is_folder else "no such file"
        fix = f"the path of a YAML file, or a shipped name: {did_you_mean(path.stem, shipped_recipes())}"
        raise UnknownKindError(f"recipe {name_or_path}: {reason}", fix)
    raise UnknownKindError(f"no recipe is called {name_or_path!r}", did_you_mean(name_or_path, shipped_recipes()))


def read_recipe(path: Path, source: str) -> dict[str, Any]:
    """The plain values of a recipe's file.

    Arguments:
        path: of the file.
        source: the name of the file in errors.

    Raises:
        RecipeError: the file cannot be read, or it is no mapping in YAML.
    """
    try:
        size = path.stat().st_size
        if size > 4 * LONGEST_TEXT:
            raise RecipeError(source, [f"needs at most {LONGEST_TEXT:,} characters, got {size:,} bytes"])
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        fix = f"iconv -f latin1 -t utf-8 {shlex.quote(str(path))} > utf-8.yaml"
        raise RecipeError(source, [f"needs text in UTF-8, byte {error.start} is none"], fix) from None
    except OSError as error:
        fix = f"chmod u+r {shlex.quote(str(path))}"
        raise RecipeError(source, [f"cannot be read: {error.strerror}"], fix) from None
    value = read_yaml(text, source)
    if not isinstance(value, dict):
        kind = "nothing" if value is None else f"a {type(value).__name__}"
        raise RecipeError(source, [f"needs a mapping of keys to values, got {kind}"], "begin with `name: my-study`")
    return value
