"""Where components are found: by file inside the package, by entry point or plugin outside of it.

Inside, the file name is the kind: `mlp` of room `gates` is the one public name of `moebius/gates/mlp.py`, equal to the
file's but for case and underscores (`top_k.py` holds `TopK`). Another distribution adds kinds by entry points of the
group `moebius.<room>`, whose name is the kind; `moebius.kit.plugins` adds those of a file. No list has to be edited.
A room's `__init__` calls `open_room(__name__)`.
"""

import difflib
import functools
import importlib
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from moebius.kit.errors import MoebiusError, UnknownKindError

# Room → its package. Rooms of the lab need the extra `lab`.
ROOMS = {
    **{room: f"moebius.{room}" for room in ("gates", "routers", "experts", "combine")},
    **{room: f"moebius.{room}" for room in ("execution", "layers", "losses", "schedules", "tasks", "integrations")},
    **{room: f"moebius.lab.{room}" for room in ("diagnostics", "data.sources", "data.augmentation")},
    **{room: f"moebius.lab.{room}" for room in ("illnesses", "remedies", "study.executors", "ways")},
}
# Room → kind → a component of a plugin's file.
_plugins: dict[str, dict[str, Callable[..., Any]]] = {}


def kinds(room: str) -> tuple[str, ...]:
    """All kinds of a room, sorted: its files, the entry points of its group, and plugins.

    Raises:
        MoebiusError: an installed distribution gives a kind a name that is taken.

    Example:
        >>> "linear" in kinds("gates")
        True
    """
    return tuple(sorted({*_files(room), *_points(room), *_plugins.get(room, ())}))


def find(room: str, kind: str) -> Callable[..., Any]:
    """The component of `room` called `kind`.

    Raises:
        UnknownKindError: with the names that come close.
        MoebiusError: another distribution's component cannot be imported.

    Example:
        >>> find("gates", "linear").__name__
        'Linear'
    """
    if kind in _files(room):
        return _component(importlib.import_module(f"{_package(room)}.{kind}"))
    if kind in _plugins.get(room, ()):
        return _plugins[room][kind]
    if kind in _points(room):
        return _loaded(_points(room)[kind])
    raise UnknownKindError(f"no {room.rsplit('.', 1)[-1]} kind is called {kind!r}", did_you_mean(kind, kinds(room)))


def kind_of(component: Any) -> tuple[str, str] | None:
    """Room and kind of a component, by what it is and not by its name; None for one that no room knows.

    Example:
        >>> from moebius.gates import Linear
        >>> kind_of(Linear)
        ('gates', 'linear')
        >>> kind_of(int) is None
        True
    """
    module = getattr(component, "__module__", None) or ""
    package, _, kind = module.rpartition(".")
    name = f"{module}:{getattr(component, '__qualname__', '')}"
    for room, home in ROOMS.items():
        if package == home and kind in _files(room) and find(room, kind) is component:
            return room, kind
        for plugin_kind, plugin in _plugins.get(room, {}).items():
            if plugin is component:
                return room, plugin_kind
    if module.partition(".")[0] == "moebius":
        return None
    for room in ROOMS:
        for point_kind, point in _points(room).items():
            # By its text first: a comparison is no reason to import another distribution.
            if point.value.replace(" ", "") == name and _loaded(point) is component:
                return room, point_kind
    return None


def register_kind(room: str, kind: str, component: Callable[..., Any]) -> None:
    """Add a kind from outside of the package; to add the same component twice changes nothing.

    Raises:
        MoebiusError: the room has another component of this kind.
    """
    if _plugins.get(room, {}).get(kind) is component:
        return
    # A session may define its class again; kinds of packages cannot be replaced.
    same_name = _plugins.get(room, {}).get(kind)
    redefined = same_name is not None and same_name.__module__ == component.__module__
    if kind in kinds(room) and not redefined:
        raise MoebiusError(f"room {room} has another kind called {kind!r}", f'@mb.register("{room}", "my_{kind}")')
    _plugins.setdefault(room, {})[kind] = component


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The fix for an unknown name: the closest of `names`, or all of them when none is close."""
    names = tuple(names)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"one of {', '.join(names)}"


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


def name_key(name: str) -> str:
    """What file, kind and component share: the name without case and underscores.

    Example:
        >>> name_key("TopK") == name_key("top_k")
        True
    """
    return name.replace("_", "").lower()


def _package(room: str) -> str:
    return ROOMS.get(room, f"moebius.{room}")


def _files(room: str) -> tuple[str, ...]:
    folders = tuple(importlib.import_module(_package(room)).__path__)
    return _files_of(folders, tuple(os.stat(folder).st_mtime_ns for folder in folders))


@functools.lru_cache(maxsize=256)
def _files_of(folders: tuple[str, ...], changed: tuple[int, ...]) -> tuple[str, ...]:
    # A folder that has changed is listed anew, as in Python's own import.
    return tuple(info.name for info in pkgutil.iter_modules(folders) if not info.name.startswith("_"))


@functools.cache
def _points(room: str) -> dict[str, EntryPoint]:
    """Kind → entry point of the other distributions that are installed."""
    points: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"moebius.{room}"):
        if (point.name in points and points[point.name].value != point.value) or point.name in _files(room):
            rule = f"{_distribution(point)} adds the kind {point.name!r} to room {room}, where that name is taken"
            raise MoebiusError(rule, f"another name for the entry point, or pip uninstall {_distribution(point)}")
        points[point.name] = point
    return points


def _loaded(point: EntryPoint) -> Callable[..., Any]:
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        rule = f"{point.group}: the entry point {point.name} = {point.value} cannot be loaded ({error})"
        raise MoebiusError(rule, f"pip install --upgrade {_distribution(point)}") from error


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "a distribution"


def _component(module: ModuleType) -> Callable[..., Any]:
    file_name = module.__name__.rsplit(".", 1)[-1]
    key = name_key(file_name)
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) == module.__name__ and name_key(name) == key:
            return value
    raise UnknownKindError(f"{module.__name__} defines no public name that equals its file's", f"define {file_name}")


class _Room(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"module {self.__name__} has no attribute {name!r}")
        room = _room(self)
        # Files first: to look at what is installed takes longer.
        for candidates in (_files, kinds):
            for kind in candidates(room):
                if name_key(kind) == name_key(name) and (component := find(room, kind)).__name__ == name:
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
        room = _room(self)
        return sorted(find(room, kind).__name__ for kind in kinds(room))


def _room(package: ModuleType) -> str:
    return package.__name__.removeprefix("moebius.").removeprefix("lab.")
