import json

import pytest

from moebius.lab.report import build, page
from moebius.lab.report.source import SCHEMA, read_study
from moebius.lab.report.tables import tabulate


@pytest.mark.parametrize(
    "shape",
    [
        {"epochs": 3},
        {"variants": {"linear": 2}, "seeds": 1, "epochs": 1, "domains": ("digits",), "classes": 10},
        {"variants": {"one": 1}, "seeds": 1},
        pytest.param({"variants": {"twenty": 20}, "epochs": 2}, marks=pytest.mark.thorough),
        {"variants": {"tree": 2}, "nested": ("tree",), "seeds": 1},
        pytest.param(
            {"variants": {"tree": 2, "flat": 3}, "nested": ("tree",), "seeds": 2, "gates": ["1.mixture.gate"]},
            marks=pytest.mark.thorough,
        ),
        {"variants": {"blocks": 2}, "seeds": 1, "gates": ["0.mixture.gate", "2.mixture.gate"]},
        {"variants": {'<script>Top-2<script> & "β" .1': 2, "script top 2 script β 1": 2}, "seeds": 1},
    ],
    ids=["plain", "single", "one-expert", "twenty-experts", "nested", "in-sequence", "two-in-sequence", "odd-names"],
)
def test_builds_a_whole_page_of_every_shape(make_study, holds_together, shape):
    holds_together(make_study(**shape))


def test_builds_the_same_bytes_again(make_study):
    out = make_study(variants={"linear": 2}, seeds=2, epochs=2)
    files = {path: path.read_bytes() for path in (build(out), *out.rglob("*.csv"), *out.rglob("*.svg"))}
    build(out)
    assert all(path.read_bytes() == content for path, content in files.items())


def test_a_figure_that_cannot_be_drawn_takes_nothing_with_it(make_study, monkeypatch):
    def fail_first(figure):
        if not figures:
            figures.append(figure)
            raise ValueError("the chart library has failed")
        return draw(figure)

    out, figures, draw = make_study(variants={"linear": 2}, seeds=1, epochs=1), [], page.render
    build(out)
    before = {path.name for path in (out / "figures").iterdir()}
    monkeypatch.setattr(page, "render", fail_first)
    with pytest.warns(UserWarning, match="is not drawn: the chart library has failed"):
        text = build(out).read_text(encoding="utf-8")
    name = figures[0].name
    assert {path.name for path in (out / "figures").iterdir()} == before - {f"{name}.svg", f"{name}.png"}
    assert text.count("This figure could not be drawn (ValueError)") == 1
    assert f"figures/{name}.svg" not in text


def test_only_the_required_keys_are_required(make_study):
    out = make_study(seeds=1, epochs=1)
    (out / "study.json").write_text(json.dumps({"schema": SCHEMA}))
    runs = [{"variant": "a", "seed": 0, "accuracy": {"test": 0.5}}]
    (out / "results.json").write_text(json.dumps({"schema": SCHEMA, "runs": runs}))
    assert ".500" in build(out).read_text(encoding="utf-8")


def test_says_how_to_run_it_again(make_study):
    out = make_study(variants={"single": 1}, seeds=2, epochs=1)
    about = json.loads((out / "study.json").read_text())
    about |= {"command": ["moebius", "run", "my recipe.yaml", "training.epochs=1", "--data-dir", "DATA_DIR"]}
    (out / "study.json").write_text(json.dumps(about))
    text = build(out).read_text(encoding="utf-8")
    assert "moebius run &#39;my recipe.yaml&#39; training.epochs=1 --data-dir DATA_DIR" in text
    assert "DATA_DIR: the folder of the data sets" in text


def test_the_first_screen_comes_first_and_the_facts_last(make_study):
    text = build(make_study(seeds=1, epochs=1)).read_text(encoding="utf-8")
    places = [text.index(part) for part in ("<h1>", 'id="answer"', "<nav", 'id="results"', "0f1e2d", "moebius 0.1.0")]
    assert places == sorted(places)
    assert 'id="about"' in text[places[3] : places[4]]


@pytest.mark.thorough
def test_long_tables_and_many_parts_are_folded(make_study, holds_together):
    variants = {f"v{place:02}": 2 for place in range(15)}
    text = holds_together(make_study(variants=variants, seeds=1, epochs=2, rows={"train": 60, "test": 60}))
    assert "5 more rows" in text
    assert "tables/confusion.csv also has " in text
    assert "Of 15 variants v00, v01 and v02 are shown; the others are in that table." in text


def test_charts_are_drawn_from_tables_not_from_rows(make_study):
    out = make_study(variants={"linear": 2}, seeds=1, epochs=2, rows={"train": 200, "test": 5000})
    small = tabulate(read_study(out)).tables
    assert max(len(frame) for frame in small.values()) < 5000
