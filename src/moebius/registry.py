"""The file name is the registry key: kind `mlp` of room `gates` is the one public name of `moebius/gates/mlp.py`.

The name equals the file's but for case and underscores (`top_k.py` holds `TopK`). Adding a component is adding its
file: there is no list, no decorator and no `__init__` to edit. A room's `__init__` calls `open_room(__name__)`.
"""

import difflib
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from moebius.errors import UnknownKindError

ROOMS = (
    "gates",
    "routers",
    "experts",
    "combine",
    "execution",
    "layers",
    "losses",
    "schedules",
    "diagnostics",
    "data.sources",
    "data.augmentation",
)


def kinds(room: str) -> tuple[str, ...]:
    """All kinds of a room, sorted: the names of its files.

    Example:
        >>> "linear" in kinds("gates")
        True
    """
    package = importlib.import_module(f"moebius.{room}")
    return tuple(sorted(info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_")))


def find(room: str, kind: str) -> Callable[..., Any]:
    """The component of `room` called `kind`.

    Raises:
        UnknownKindError: with the names that come close.

    Example:
        >>> find("gates", "linear").__name__
        'Linear'
    """
    known = kinds(room)
    if kind not in known:
        raise UnknownKindError(f"no {room.rsplit('.', 1)[-1]} kind is called {kind!r}", did_you_mean(kind, known))
    return _component(importlib.import_module(f"moebius.{room}.{kind}"))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The fix for a name that is unknown: the closest known ones, or all of them when none is close."""
    known = tuple(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"one of {', '.join(known)}"


def summary(component: Callable[..., Any]) -> str:
    """The first line of a component's docstring."""
    return (component.__doc__ or "").strip().split("\n", 1)[0]


def reference(component: Callable[..., Any]) -> str:
    """Where a component is from: the first sentence after "Reference:" in its docstring."""
    _, _, rest = (inspect.getdoc(component) or "").partition("Reference:")
    paragraph = " ".join(rest.strip().split("\n\n", 1)[0].split())
    return re.split(r"\.(?: (?=[A-Z])|$)", paragraph, maxsplit=1)[0]


def catalogue(room: str) -> list[tuple[str, str, str]]:
    """Every kind of a room with its one-line description and its source.

    Raises:
        UnknownKindError: no room is called so.

    Example:
        >>> [entry for entry in catalogue("routers") if entry[0] == "argmax"][0][1]
        'The expert with the largest score alone sees the row, with weight 1; the first of several that tie.'
    """
    if room not in ROOMS:
        raise UnknownKindError(f"no room is called {room!r}", did_you_mean(room, ROOMS))
    return [(kind, summary(find(room, kind)), reference(find(room, kind))) for kind in kinds(room)]


def open_room(name: str) -> None:
    """Make package `name` a room: its components are its attributes, each imported when first asked for."""
    sys.modules[name].__class__ = _Room


def _key(name: str) -> str:
    return name.replace("_", "").lower()


def _component(module: ModuleType) -> Callable[..., Any]:
    file_name = module.__name__.rsplit(".", 1)[-1]
    for name, value in vars(module).items():
        if _key(name) == _key(file_name) and getattr(value, "__module__", None) == module.__name__:
            return value
    raise UnknownKindError(f"{module.__name__} defines no public name that equals its file's", f"define {file_name}")


class _Room(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"module {self.__name__} has no attribute {name!r}")
        room = self.__name__.removeprefix("moebius.")
        for kind in kinds(room):
            if _key(kind) == _key(name):
                component = find(room, kind)
                if component.__name__ == name:
                    super().__setattr__(name, component)
                    return component
        raise AttributeError(f"module {self.__name__} has no attribute {name!r}; {did_you_mean(name, dir(self))}")

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing moebius.losses.batch_entropy binds the *module* to the room's attribute of that name, where users
        # expect the function: bind the component instead.
        if isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}" and not name.startswith("_"):
            value = vars(value).get(name, value)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        room = self.__name__.removeprefix("moebius.")
        return sorted(find(room, kind).__name__ for kind in kinds(room))
