"""Every data source keeps the contract of `moebius.testing.sources`; a new one is tested by being there."""

import pandas as pd
import pytest

from moebius.lab.data.sources import CSV, Folder, Parquet
from moebius.testing import cases, check_source
from moebius.testing.sources import CHECKS

# What these read does not come with the package: here they are held to what holds for all components.
SKIP = [f"{kind}.{check.__name__}" for kind in ("csv", "folder", "hub", "hub_table", "parquet") for check in CHECKS]


@pytest.mark.parametrize(("name", "check"), cases("data.sources", SKIP))
def test_every_source(name, check):
    check()


def test_a_folder(tmp_path, make_png):
    for place in ("a/0", "a/1", "a/2", "b/0", "b/1"):
        file = tmp_path / f"{place}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(make_png(len(place)))
    check_source(Folder, path=str(tmp_path))


def test_tables_in_files(tmp_path):
    frame = pd.DataFrame({"size": [1.5, 2.5, None, 4.5], "color": ["red", "red", "blue", None], "kind": [0, 1, 1, 0]})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_parquet(tmp_path / "rows.parquet")
    check_source(CSV, path=str(tmp_path / "rows.csv"), target="kind")
    check_source(Parquet, path=str(tmp_path / "rows.parquet"), target="kind")
