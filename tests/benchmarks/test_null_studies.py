"""Simulated studies: the report names no difference where there is none, and finds those that were planted."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from moebius.lab.report.blocks import Points
from moebius.lab.report.sections import results
from moebius.lab.report.tables import tabulate

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module("null_studies")
    del sys.modules["null_studies"]


def check(benchmark, repetitions, tolerance):
    # So many of the studies that name a difference are chance at a true 5 %, all but once in a thousand.
    most = binom.isf(0.001, repetitions, 0.05) / repetitions
    null = benchmark.null_shares(repetitions)
    assert {line["variants"] for line in null} == {4, 8, 14}
    assert [line for line in null if line["share"] > most] == []
    # The rule of before is seen to name far too many: the simulation can tell the two apart.
    assert min(line["before"] for line in null if line["kind"] == "alike") > 0.1
    found = benchmark.power_shares(repetitions)
    assert [line for line in found if abs(line["share"] - line["foretold"]) > tolerance] == []
    assert max(line["foretold"] for line in found) > 0.8 > 0.05 > min(line["foretold"] for line in found)
    called = benchmark.level_shares(repetitions)
    assert [line for line in called if line["true"] and line["share"] > most] == []
    assert [line for line in called if not line["true"] and abs(line["share"] - line["foretold"]) > tolerance] == []


def test_few_studies(benchmark):
    # ± 4 standard errors of a share of one half.
    check(benchmark, 60, 4 * 0.5 / 60**0.5)


@pytest.mark.slow
def test_two_thousand_studies(benchmark):
    check(benchmark, 2000, 0.05)


def test_what_is_counted_is_what_the_report_says(benchmark):
    random, said = np.random.default_rng(5), []
    for _ in range(20):
        scores = benchmark.draw_alike(random, 4, 5)
        scores[1] += 0.012
        section = results.section(tabulate(benchmark.make_study(scores)))
        assert section is not None
        (points,) = [block for block in section.blocks if isinstance(block, Points)]
        leads = [lead for lead, _ in points.points]
        said.append(any(lead.startswith(("Better than", "Worse than")) for lead in leads))
        assert said[-1] == benchmark.names_a_difference(scores)
    assert 2 < sum(said) < 18
