import numpy as np
import pandas as pd
import pytest

from moebius.kit.errors import ArgumentError, DataError
from moebius.lab.data.load_sets import load_sets
from moebius.lab.data.sources import CSV, HubTable


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "people").mkdir()
    frame = pd.DataFrame({"age": np.arange(50.0), "city": ["Rome", "Oslo"] * 25, "rich": ["no", "yes"] * 25})
    frame.to_csv(tmp_path / "people" / "train.csv", index=False)
    return tmp_path / "people"


def test_a_set_of_the_hub_is_read_as_a_file_is(folder):
    data = load_sets([HubTable(str(folder), target="rich", domain="city")], 8)
    same = load_sets([CSV(str(folder / "train.csv"), target="rich", domain="city")], 8)
    assert (data.classes, data.domains, data.facts) == (same.classes, same.domains, same.facts)
    assert data.train.images.equal(same.train.images)
    assert data.test.labels.equal(same.test.labels)
    below = load_sets([HubTable("organisation/people", target="rich", domain="city")], 8, data_dir=folder.parent)
    assert below.train.images.equal(data.train.images)


def test_what_is_not_there_is_refused(folder):
    with pytest.raises(DataError, match="target names 'poor'"):
        load_sets([HubTable(str(folder), target="poor")], 8)
    with pytest.raises(DataError):
        load_sets([HubTable(str(folder), target="rich", split="tset")], 8)
    with pytest.raises(ArgumentError, match=r"^name: "):
        HubTable("/", target="rich")
