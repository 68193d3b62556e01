"""The page of one model that `mb.fit` has trained."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError, StudyError
from moebius.lab.study.fitted_report import write_report


def make_rows(count, seed):
    x = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > 0.5).long(), x[:, 1] * 2


def make_mixture(outputs):
    torch.manual_seed(0)
    return mb.Mixture(mb.gates.Linear(2, 2), [nn.Linear(2, outputs) for _ in range(2)])


@pytest.mark.parametrize(("task", "score"), [("classification", "accuracy"), ("regression", "r2")])
def test_it_is_a_recipes_page_of_any_task(tmp_path, task, score):
    (x, labels, numbers), (x_test, test_labels, test_numbers) = make_rows(200, 0), make_rows(50, 1)
    is_classes = task == "classification"
    rows = (x, labels if is_classes else numbers), (x_test, test_labels if is_classes else test_numbers)
    moe = make_mixture(2 if is_classes else 1)
    fitted = mb.fit(moe, rows[0], task=task, test=rows[1], epochs=3, lr=0.05, progress=False)
    path = fitted.report(tmp_path / "report", title="How good is it?")
    page = path.read_text()
    assert "How good is it?" in page
    assert "50 test rows" in page
    assert ("Confusion" in page) == is_classes
    (run,) = json.loads((path.parent / "results.json").read_text())["runs"]
    assert run[score]["test"] == pytest.approx(fitted.test.score)
    assert run["oracle"] == fitted.oracle
    assert len(pd.read_csv(path.parent / "tables" / "load.csv")) == 4
    assert mb.report(fitted, folder=tmp_path / "report") == path  # written anew
    assert "How good is it?" not in path.read_text()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["report"]


def test_nothing_else_in_a_folder_is_lost(tmp_path):
    x, labels, _ = make_rows(100, 0)
    fitted = mb.fit(make_mixture(2), (x, labels), test=(x, labels), epochs=1, progress=False)
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(StudyError, match="holds something else than a report") as caught:
        fitted.report(tmp_path)
    assert "-report" in caught.value.fix
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_figures_of_test_rows_need_test_rows(tmp_path):
    x, labels, _ = make_rows(100, 0)
    fitted = mb.fit(make_mixture(2), (x, labels), epochs=1, progress=False)
    with pytest.raises(ArgumentError, match="no test rows were given") as caught:
        fitted.report(tmp_path / "report")
    assert caught.value.fix == "mb.fit(…, test=(x_test, y_test))"
    assert not (tmp_path / "report").exists()


def test_a_run_of_a_study_has_its_report(tmp_path):
    x, labels, _ = make_rows(100, 0)
    fitted = mb.fit(make_mixture(2), (x, labels), test=(x, labels), epochs=1, progress=False)

    with pytest.raises(ArgumentError, match=r"needs the outcome of mb\.fit"):
        write_report(replace(fitted, origin=None), tmp_path / "report")
