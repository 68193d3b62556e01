import numpy as np
import pandas as pd
import pytest

from moebius.kit.errors import StudyError
from moebius.lab.report.source import read_study
from moebius.lab.report.tables import tabulate, write_tables
from moebius.lab.statistics.interval import interval


@pytest.fixture
def out(make_study):
    return make_study(variants={"single": 1, "tree": 2}, seeds=2, epochs=3, nested=("tree",))


def test_summary_is_the_interval_over_seeds(out):
    study = tabulate(read_study(out))
    values = [run["accuracy"]["test"] for run in study.runs if run["variant"] == "tree"]
    line = study.table("summary", variant="tree", split="test", measure="accuracy").iloc[0]
    score = interval(values)
    assert (line["mean"], line["low"], line["high"], line["seeds"]) == (score.mean, score.low, score.high, 2)


def test_rows_say_the_same_as_results(out):
    study = tabulate(read_study(out))
    for run in study.runs:
        confusion = study.table("confusion", variant=run["variant"], seed=run["seed"], split="test")
        right = confusion.loc[confusion["label"] == confusion["prediction"], "rows"].sum()
        assert right / confusion["rows"].sum() == pytest.approx(run["accuracy"]["test"])


def test_a_nested_gate_counts_only_the_images_it_saw(out):
    study = tabulate(read_study(out))
    inner = study.table("weight_histogram", variant="tree", gate="experts.0.gate", split="test", seed=0, expert=0)
    root = study.table("weight_histogram", variant="tree", gate="gate", split="test", seed=0, expert=0)
    assert 0 < inner["rows"].sum() < root["rows"].sum()
    rates = study.table("activation", variant="tree", gate="experts.0.gate", split="test", seed=0, by="domain")
    np.testing.assert_allclose(rates.groupby("group")["rate"].sum(), 1.0, rtol=1e-6)


def test_writes_csv_that_reads_back_tidy(out):
    write_tables(tabulate(read_study(out)))
    results = pd.read_csv(out / "results.csv")
    assert results[["variant", "seed"]].values.tolist() == [["single", 0], ["single", 1], ["tree", 0], ["tree", 1]]
    assert {"test_accuracy", "train_loss", "test_accuracy:mnist", "parameters"} <= set(results.columns)
    epochs = pd.read_csv(out / "tables" / "epochs.csv")
    assert set(epochs["measure"]) == {"accuracy", "loss", "loss:cross_entropy", "accuracy:mnist", "accuracy:cifar10"}
    gates = pd.read_csv(out / "tables" / "gates.csv", dtype=str)
    assert set(gates["expert"].dropna()) == {"0", "1"}


def test_a_broken_parquet_is_named(out):
    path = out / "tree" / "seed-1" / "routing.parquet"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StudyError, match=r"tree/seed-1/routing\.parquet: cannot be read"):
        tabulate(read_study(out))


def test_measures_have_tables_of_what_the_rows_give(out):
    tables = tabulate(read_study(out)).tables
    assert {"balance", "input_dependence", "specialisation", "calibration", "group_split"} <= set(tables)
    # All experts of these gates run for every row, and no run writes down what each expert loses.
    assert not {"coactivation", "headroom", "regret", "ablation"} & set(tables)
    information = tables["specialisation"].query("split == 'test' and by == 'domain' and gate == 'gate'")
    assert (information["information"] > information["null"]).tolist() == (information["experts"] > 1).tolist()
