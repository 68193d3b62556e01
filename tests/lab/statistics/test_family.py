import json

import numpy as np
import pytest

from moebius.lab.statistics.difference import Difference, paired
from moebius.lab.statistics.equivalence import equivalence
from moebius.lab.statistics.family import Contrast, compare_with_baseline, correct
from moebius.lab.statistics.holm import holm
from moebius.lab.statistics.paired_rows import paired_rows

SCORES = {
    "a": [0.600, 0.621, 0.613, 0.598],
    "b": [0.650, 0.668, 0.665, 0.644],
    "c": [0.601, 0.621, 0.612, 0.599],
    "d": [0.590, 0.640, 0.600, 0.630],
    "e": [0.594, 0.614, 0.6075, 0.592],
}
BY_SEED = {name: dict(enumerate(values)) for name, values in SCORES.items()}


def test_each_pair_is_tested_as_alone_and_corrected_for_all():
    family = compare_with_baseline(BY_SEED, "a", margin=0.01)
    differences = [paired(SCORES[name], SCORES["a"]) for name in "bcde"]
    assert [contrast.difference for contrast in family.contrasts] == differences
    assert [contrast.p_holm for contrast in family.contrasts] == holm([each.p for each in differences])
    levels = [equivalence(each, 0.01) for each in differences]
    assert [contrast.p_level for contrast in family.contrasts] == levels
    assert [contrast.p_level_holm for contrast in family.contrasts] == holm(levels)
    assert (family.tested, family.over, family.baseline) == (4, "seeds", "a")


def test_verdicts_are_what_is_shown():
    family = compare_with_baseline(BY_SEED, "a", margin=0.01)
    verdicts = {contrast.name: contrast.verdict for contrast in family.contrasts}
    assert verdicts == {"b": "better", "c": "level", "d": "not shown to differ", "e": "worse"}
    # A difference that is shown and does not matter is both.
    worse = family.contrasts[3]
    assert (worse.differs, worse.is_level) == (True, True)
    assert [*family.by_verdict()] == ["better", "worse", "level", "not shown to differ"]
    without = compare_with_baseline(BY_SEED, "a")
    assert without.contrasts[1].verdict == "not shown to differ"


def test_only_common_seeds_count_and_pairs_without_two_are_left_out():
    scores = {**BY_SEED, "f": {0: 0.9, 7: 0.9}, "g": {2: 0.7, 3: 0.7, 9: 0.1}}
    family = compare_with_baseline(scores, "a")
    f, g = family.contrasts[-2:]
    assert (f.difference, f.p_holm, f.verdict) == (None, None, "not shown to differ")
    assert g.difference == paired([0.7, 0.7], SCORES["a"][2:])
    assert family.tested == 5


def test_rows_of_single_trainings_are_paired_by_row():
    random = np.random.default_rng(0)
    base = (random.random(500) < 0.6).astype(float)
    better = np.where(random.random(500) < 0.3, 1.0, base)
    family = compare_with_baseline({"a": base, "b": better}, "a", margin=0.005)
    (contrast,) = family.contrasts
    assert contrast.difference == paired_rows(better, base)
    assert (family.over, contrast.verdict) == ("rows", "better as trained")


def test_plain_values_are_json():
    document = json.loads(json.dumps(compare_with_baseline(BY_SEED, "a", 0.01, "b").to_dict(), allow_nan=False))
    assert (document["baseline"], document["comparisons"], document["chosen_on_validation"]) == ("a", 4, "b")
    assert document["pairs"][0]["difference"]["count"] == 4
    assert document["pairs"][0]["verdict"] == "better"


@pytest.mark.parametrize("margin", [None, 0.005])
def test_a_difference_without_spread_shows_nothing(margin):
    (contrast,) = correct([Contrast("b", "a", Difference(0.2, None, None, None, 3), "seeds", margin)])
    assert contrast.verdict == "not shown to differ"
