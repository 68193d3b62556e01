import json

import pytest

from moebius.kit.errors import DamagedFileError, StudyError
from moebius.lab.report import build
from moebius.lab.report.source import read_study


def test_runs_follow_the_recipe_then_the_seed(make_study):
    out = make_study(variants={"b": 1, "a": 2}, seeds=2, epochs=1)
    results = json.loads((out / "results.json").read_text())
    results["runs"].reverse()
    (out / "results.json").write_text(json.dumps(results))
    study = read_study(out)
    assert [(run["variant"], run["seed"]) for run in study.runs] == [("b", 0), ("b", 1), ("a", 0), ("a", 1)]
    assert (study.variants, study.seeds) == (("b", "a"), (0, 1))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("study.json", None, "there is no such file"),
        ("results.json", None, "there is no such file"),
        ("results.json", "{", "is no JSON"),
        ("results.json", '{"schema": 1}', "needs schema 2, got 1, which moebius 0.1 wrote"),
        ("results.json", '{"schema": 3}', r"needs schema 2, got 3\n"),
        ("study.json", "[]", "needs schema 2, got 'list'"),
        ("results.json", '{"schema": 2, "runs": []}', "needs at least one run"),
    ],
)
def test_a_folder_that_cannot_be_read_is_refused_and_left_as_it_was(make_study, name, text, message):
    out = make_study(epochs=1, seeds=1)
    (out / name).unlink() if text is None else (out / name).write_text(text)
    before = sorted(out.rglob("*"))
    with pytest.raises(StudyError, match=message) as error:
        build(out)
    assert name in str(error.value)
    assert error.value.fix
    assert sorted(out.rglob("*")) == before


@pytest.mark.parametrize("score", ["r2", "\ud800", "a\x00b"])
def test_a_score_that_no_expert_has_is_refused(make_study, score):
    out = make_study(epochs=1, seeds=1)
    results = json.loads((out / "results.json").read_text())
    results["runs"][0]["experts_alone"] = [{"paths": ["0"], "accuracy": 0.5}]
    (out / "results.json").write_text(json.dumps(results))
    read_study(out)
    about = json.loads((out / "study.json").read_text())
    (out / "study.json").write_text(json.dumps({**about, "task": {"score": score}}))
    with pytest.raises(DamagedFileError, match="score"):
        read_study(out)
