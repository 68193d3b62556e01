"""The file name is the registry key, in every room."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import moebius as mb
from moebius.kit.errors import UnknownKindError
from moebius.kit.registry import ROOMS as rooms
from moebius.kit.registry import did_you_mean, find, kinds, open_room, summary

PACKAGE = Path(mb.__file__).parent
ROOMS = [
    ".".join(path.parent.relative_to(PACKAGE).parts).removeprefix("lab.")
    for path in sorted(PACKAGE.rglob("__init__.py"))
    if "open_room(__name__)" in path.read_text(encoding="utf-8")
]


def room_of(name):
    return importlib.import_module(rooms[name])


def test_the_rooms_are_found():
    assert set(ROOMS) == set(rooms)


@pytest.mark.parametrize("room", ROOMS)
def test_every_kind_is_one_public_component_with_a_summary(room):
    assert kinds(room)
    for kind in kinds(room):
        component = find(room, kind)
        assert callable(component)
        assert component.__name__.replace("_", "").lower() == kind.replace("_", "")
        assert component.__module__ == f"{rooms[room]}.{kind}"
        assert inspect.getdoc(component).splitlines()[0] == summary(component)
        assert getattr(room_of(room), component.__name__) is component


@pytest.mark.parametrize("room", ROOMS)
def test_dir_names_the_components(room):
    assert dir(room_of(room)) == sorted(find(room, kind).__name__ for kind in kinds(room))


def test_unknown_kinds_get_close_ones():
    with pytest.raises(UnknownKindError, match=r"^no gates kind is called 'liner'\n  fix: did you mean linear\?$"):
        find("gates", "liner")
    with pytest.raises(UnknownKindError, match="no sources kind is called 'digit'\n  fix: did you mean digits"):
        find("data.sources", "digit")
    with pytest.raises(UnknownKindError, match=r"fix: one of .*conv.*linear"):
        find("gates", "qqqqqq")


def test_did_you_mean():
    assert did_you_mean("linar", ["linear", "mlp"]) == "did you mean linear?"
    assert did_you_mean("top_k", ["top_1", "top_p", "soft"]) == "did you mean top_p or top_1?"
    assert did_you_mean("x", (name for name in ("linear", "mlp"))) == "one of linear, mlp"


def test_unknown_attributes_get_close_ones():
    with pytest.raises(AttributeError, match=r"module moebius\.gates has no attribute 'Liner'; did you mean Linear\?"):
        _ = mb.gates.Liner
    assert not hasattr(mb.gates, "__wrapped__")
    assert not hasattr(mb.gates, "_private")


CASES = {
    "the room first": "import moebius as mb; f = mb.losses.batch_entropy; import moebius.losses.batch_entropy",
    "the module first": "import moebius.losses.batch_entropy, moebius as mb; f = mb.losses.batch_entropy",
    "from the room": "from moebius.losses import batch_entropy as f; import moebius as mb",
    "from the module": "from moebius.losses.batch_entropy import batch_entropy as f; import moebius as mb",
    "by kind": "import moebius as mb; from moebius.kit.registry import find; f = find('losses', 'batch_entropy')",
}


# The first two import in either order; the others are thorough.
@pytest.mark.parametrize(
    "case", [*list(CASES)[:2], *(pytest.param(case, marks=pytest.mark.thorough) for case in list(CASES)[2:])]
)
def test_a_function_is_never_hidden_by_the_module_of_its_name(case):
    code = f"{CASES[case]}\nimport sys\nassert f is mb.losses.batch_entropy\nassert type(f).__name__ == 'function', f"
    code += "\nassert type(sys.modules['moebius.losses.batch_entropy']).__name__ == 'module'"
    code += "\nassert mb.losses.batch_entropy is mb.losses.batch_entropy"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_new_file_is_a_new_kind(tmp_path, monkeypatch):
    # A room of its own inside the package's name space, from files.
    folder = tmp_path / "drawer"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""A room."""\n')
    (folder / "big_thing.py").write_text('class BigThing:\n    """Big."""\n\n\nclass Helper:\n    """Not it."""\n')
    (folder / "_shared.py").write_text("")
    (folder / "empty.py").write_text("from collections import OrderedDict as Empty\n")
    monkeypatch.setattr(mb, "__path__", [*mb.__path__, str(tmp_path)])
    drawer = importlib.import_module("moebius.drawer")
    monkeypatch.setitem(sys.modules, "moebius.drawer", drawer)
    open_room("moebius.drawer")
    assert kinds("drawer") == ("big_thing", "empty")
    assert find("drawer", "big_thing")().__doc__ == "Big."
    assert drawer.BigThing is find("drawer", "big_thing")
    with pytest.raises(UnknownKindError, match=r"moebius\.drawer\.empty defines no public name that equals its file's"):
        find("drawer", "empty")
    for name in [name for name in sys.modules if name.startswith("moebius.drawer")]:
        monkeypatch.delitem(sys.modules, name)
