"""`fitted.plot()`: the figures of the epochs as a drawing."""

import altair as alt
import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.lab.training.epoch_chart import draw_epochs


@pytest.fixture(scope="module")
def rows():
    x = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


def fit(rows, **options):
    moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 2) for _ in range(2)])
    return mb.fit(moe, rows, **{"epochs": 4, "patience": 9, **options})


def panels(chart):
    """Title of the panel → split → epoch → value, and the epochs of its vertical lines."""
    found = {}
    drawing = chart.to_dict()

    def rows_of(layer):
        return layer["data"].get("values") or drawing["datasets"][layer["data"]["name"]]

    for panel in drawing["hconcat"]:
        lines, *rules = panel["layer"]
        values = {}
        for line in rows_of(lines):
            values.setdefault(line["split"], {})[line["epoch"]] = line["value"]
        marks = [value["epoch"] for rule in rules for value in rows_of(rule)]
        found[lines["encoding"]["y"]["title"]] = (values, marks)
    return found


def test_loss_and_score_of_the_splits_that_are_there(rows):
    fitted = fit(rows)
    drawn = panels(fitted.plot())
    assert [*drawn] == ["loss", "accuracy"]
    for name, (values, marks) in drawn.items():
        assert values == {
            split: {entry["epoch"]: entry[split][name] for entry in fitted.metrics} for split in ("train", "validation")
        }
        assert marks == [fitted.epoch]


def test_test_rows_and_a_metric_where_they_are_given(rows):
    metrics = {"worst": lambda output, target: output.abs().max()}
    drawn = panels(fit(rows, test=rows, metrics=metrics).plot("worst", "loss"))
    assert {name: [*values] for name, (values, _) in drawn.items()} == {
        "worst": ["validation", "test"],
        "loss": ["train", "validation", "test"],
    }


def test_one_epoch_is_points_and_a_file_is_drawn_offline(rows, tmp_path):
    chart = fit(rows, epochs=1).plot()
    assert [layer["mark"]["type"] for layer in chart.to_dict()["hconcat"][0]["layer"]] == ["point"]
    chart.save(tmp_path / "epochs.svg")
    assert "<svg" in (tmp_path / "epochs.svg").read_text()
    assert isinstance(chart, alt.HConcatChart)


def test_many_epochs_and_infinite_losses_are_drawn():
    entries = [
        {"epoch": epoch, "train": {"loss": 1 / epoch if epoch % 2 else float("inf")}} for epoch in range(1, 9001)
    ]
    (values, marks) = panels(draw_epochs(entries, ["loss"], 9000))["loss"]
    assert len(values["train"]) == 4500
    assert marks == [9000]


def test_an_unknown_figure_is_refused(rows):
    with pytest.raises(ArgumentError, match=r"one of accuracy, loss, terms/cross_entropy, got 'f1'") as error:
        fit(rows).plot("f1")
    assert error.value.fix
