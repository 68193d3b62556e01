"""Every data source keeps the contract of `moebius.testing.sources`; a new one is tested by being there."""

import pytest

from moebius.lab.data.sources import Folder
from moebius.testing import cases, check_source
from moebius.testing.sources import CHECKS

# What these read does not come with the package: here they are held to what holds for all components.
SKIP = [f"{kind}.{check.__name__}" for kind in ("folder", "hub") for check in CHECKS]


@pytest.mark.parametrize(("name", "check"), cases("data.sources", SKIP))
def test_every_source(name, check):
    check()


def test_a_folder(tmp_path, make_png):
    for place in ("a/0", "a/1", "a/2", "b/0", "b/1"):
        file = tmp_path / f"{place}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(make_png(len(place)))
    check_source(Folder, path=str(tmp_path))
