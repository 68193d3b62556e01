import json

import pytest

from moebius.lab.report.sections import settings as section_of_settings
from moebius.lab.report.settings import differing_settings
from moebius.lab.report.source import read_study

CONV = {"kind": "conv", "filters": [8, 16]}


@pytest.fixture
def study(make_study):
    variants = {
        "base": {},
        "wide": {"experts": {"filters": [32, 64]}, "training": {"losses": [{"kind": "l1", "weight": 0.1}]}},
        "top": {"router": {"kind": "top_k", "k": 1}},
    }
    out = make_study(variants=dict.fromkeys(variants, 2), seeds=1, epochs=1, rows={"train": 40, "test": 40})
    about = json.loads((out / "study.json").read_text())
    model = {"gate": {"kind": "linear"}, "router": {"kind": "soft"}, "experts": {**CONV, "count": 2}}
    about["recipe"] |= {"variants": variants, "model": model, "training": {"epochs": 1, "losses": []}}
    (out / "study.json").write_text(json.dumps(about))
    return read_study(out)


def test_only_keys_whose_values_differ_are_listed(study):
    assert differing_settings(study) == {
        "router": {"base": "soft", "wide": "soft", "top": "top_k (k 1)"},
        "experts.filters": {"base": "[8, 16]", "wide": "[32, 64]", "top": "[8, 16]"},
        "training.losses": {"base": "–", "wide": "l1 (weight 0.1)", "top": "–"},
    }


def test_the_table_says_what_is_as_in_the_baseline(study):
    section = section_of_settings.section(study)
    assert section is not None
    rows = {row[0]: row[1:] for row in section.blocks[0].rows}
    assert rows["base"] == ["soft", "[8, 16]", "–"]
    assert rows["top"] == ["top_k (k 1)", "same", "same"]
    assert next(iter(rows)) == "base"
