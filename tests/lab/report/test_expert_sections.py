"""What the page says of experts equals what routing.parquet and results.json say, counted another way."""

import importlib
import json

import numpy as np
import pandas as pd
import pytest

from moebius.lab.report.blocks import Block, Code, Details, Panels, Table, Text
from moebius.lab.report.figures import Figure
from moebius.lab.report.sections import findings, specialists
from moebius.lab.report.source import read_study
from moebius.lab.report.tables import tabulate

# The room gives the diagnostics of these names, not their files.
activation, flow, weight_histogram = (
    importlib.import_module(f"moebius.lab.diagnostics.{name}") for name in ("activation", "flow", "weight_histogram")
)


def edit_runs(out, change):
    content = json.loads((out / "results.json").read_text())
    for run in content["runs"]:
        change(run)
    (out / "results.json").write_text(json.dumps(content))


def flatten(blocks: list[Block]):
    for block in blocks:
        yield block
        if isinstance(block, Details):
            yield from flatten(block.blocks)


def figures_of(section) -> dict[str, Figure]:
    return {
        figure.name: figure
        for block in flatten(section.blocks)
        if isinstance(block, Panels)
        for figure in block.figures
    }


def data_of(figure: Figure) -> list[pd.DataFrame]:
    datasets = figure.chart.to_dict(validate=False).get("datasets", {})
    return [pd.DataFrame(lines) for lines in datasets.values()]


def routed_rows(out, variant):
    frame = pd.read_parquet(out / variant / "seed-0" / "routing.parquet")
    return frame[frame["split"] == "test"].reset_index(drop=True)


def with_experts(out, scores):
    """Give each run experts with these scores alone by class, (C, E), and an oracle."""

    def change(run):
        classes, experts = scores[run["variant"]].shape if run["variant"] in scores else (0, 0)
        run["experts_alone"] = [
            {
                "paths": [f"experts.{expert}"],
                "accuracy": float(scores[run["variant"]][:, expert].mean()),
                "by_class": scores[run["variant"]][:, expert].tolist(),
                "by_domain": [0.1 * (expert + 1), 0.3],
            }
            for expert in range(experts)
        ]
        run["oracle"] = 0.97 if classes else None

    edit_runs(out, change)


@pytest.fixture
def study_with_experts(make_study):
    out = make_study(variants={"single": 1, "linear": 2, "hidden": 3}, seeds=1, epochs=1, classes=4)
    generator = np.random.default_rng(0)
    scores = {"linear": generator.random((4, 2)), "hidden": generator.random((4, 3))}
    scores["hidden"][1] = [0.5, 0.5, 0.25]  # a tie
    with_experts(out, scores)
    return out, scores, tabulate(read_study(out))


def test_activation_and_competence_have_one_scale_and_the_files_values(study_with_experts):
    out, scores, study = study_with_experts
    section = activation.section(study)
    figure = figures_of(section)["activation-class-hidden"]
    rows = routed_rows(out, "hidden")
    names = study.classes
    expected = rows.groupby("label")[[f"gate_{e}" for e in range(3)]].mean().to_numpy()
    rates, alone = [frame for frame in data_of(figure) if "text" in frame and len(frame) == 12]
    for frame, values in ((rates, expected), (alone, scores["hidden"])):
        grid = frame.pivot(index="group", columns="expert", values="value").loc[list(names)].to_numpy()
        assert np.allclose(grid, values, atol=1e-6)
    chart = figure.chart.to_dict(validate=False)
    domains = {
        json.dumps(layer["encoding"]["color"]["scale"]) for part in chart["hconcat"] for layer in part["layer"][:1]
    }
    assert len(domains) == 1
    assert '"domain": [0, 1]' in domains.pop()
    assert alone[(alone["group"] == names[1]) & alone["top"]]["expert"].tolist() == ["0", "1"]
    agree = sum(
        bool(set(np.flatnonzero(a >= a.max() - 5e-4)) & set(np.flatnonzero(b >= b.max() - 5e-4)))
        for a, b in zip(expected, scores["hidden"], strict=True)
    )
    assert f"is the best alone, or ties, on {agree} of 4 classes." in figure.caption
    by_domain = data_of(figures_of(section)["activation-domain-hidden"])
    values = next(frame for frame in by_domain if "text" in frame and set(frame["value"].round(3)) <= {0.1, 0.2, 0.3})
    assert values[values["group"] == "mnist"]["value"].tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_many_experts_and_classes_are_folded_and_counted(make_study):
    out = make_study(variants={"many": 64}, seeds=1, epochs=1, classes=100, rows={"train": 50, "test": 1000})
    figure = figures_of(activation.section(tabulate(read_study(out))))["activation-class-many"]
    (cells,) = [frame for frame in data_of(figure) if "text" in frame and len(frame) > 100]
    assert (cells["group"].nunique(), cells["expert"].nunique()) == (20, 16)
    weights = routed_rows(out, "many")[[f"gate_{e}" for e in range(64)]].sum()
    left = weights.sort_values().iloc[:48].sum() / weights.sum()
    assert f"The 48 experts that are left out have {f'{left:.3f}'.removeprefix('0')} of the weight." in figure.caption


def test_the_flow_is_that_of_the_weights(study_with_experts):
    out, _, study = study_with_experts
    figure = figures_of(flow.section(study))["flow-hidden"]
    rows = routed_rows(out, "hidden")
    weights = rows[[f"gate_{e}" for e in range(3)]].to_numpy()
    for expert, share in enumerate(weights.mean(0)):
        assert f"expert {expert} {f'{share:.3f}'.removeprefix('0')}" in figure.alt
    assert "from data sets over classes to experts" in figure.caption
    (bars,) = [frame for frame in data_of(figure) if "right" in frame]
    assert len(bars) == 2 + 4 + 3
    heights = (bars["end"] - bars["y"]).to_numpy()
    # Experts stand in the order in which few bands cross.
    assert np.allclose(np.sort(heights[-3:]), np.sort(weights.mean(0)) * heights[:2].sum(), rtol=1e-5)
    assert np.allclose(heights[:2] / heights[:2].sum(), rows["domain"].value_counts(normalize=True).sort_index())


def test_headroom_marks_are_the_scores(study_with_experts):
    _, scores, study = study_with_experts
    figure = figures_of(specialists.section(study))["headroom"]
    marks = next(frame for frame in data_of(figure) if "choice" in frame)
    marks = marks.set_index(["variant", "choice"])["score"]
    mixture = next(run["accuracy"]["test"] for run in study.runs if run["variant"] == "hidden")
    means = scores["hidden"].mean(0)
    expected = {"mixture": mixture, "best single expert": means.max(), "a random expert": means.mean(), "oracle": 0.97}
    assert marks["hidden"].to_dict() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("oracle", "words"), [(0.0, "no choice of one expert would do better"), (-0.1, "better than any choice")]
)
def test_a_mixture_that_equals_its_oracle_is_not_called_better(study_with_experts, oracle, words):
    out, _, _ = study_with_experts
    edit_runs(out, lambda run: run.update(oracle=run["accuracy"]["test"] + oracle if run["oracle"] else None))
    section = specialists.section(tabulate(read_study(out)))
    assert any(words in block.text for block in section.blocks if isinstance(block, Text))


def test_each_variant_has_a_panel_of_its_rows_largest_weights(study_with_experts):
    out, _, study = study_with_experts
    figure = figures_of(weight_histogram.section(study))["largest-weight"]
    (bins,) = data_of(figure)
    for variant, experts in (("linear", 2), ("hidden", 3)):
        tops = routed_rows(out, variant)[[f"gate_{e}" for e in range(experts)]].max(axis=1)
        counts, _ = np.histogram(tops, bins=np.linspace(0, 1, 21))
        assert bins[bins["variant"] == variant]["rows"].tolist() == pytest.approx(counts.tolist(), abs=1)
    assert set(bins["variant"]) == {"linear", "hidden"}  # one expert has no weight to share


FINDING = {
    "code": "MB001",
    "kind": "collapsed gate",
    "gate": "gate",
    "experts": [1],
    "evidence": "1 of 2 experts has 99 % of the use",
    "effect_name": "share of the use",
    "effect": 0.99,
    "low": 0.98,
    "high": 1.0,
    "null": 0.5,
    "null_model": "a balanced random router",
    "remedy": "balance the experts",
    "remedies": ["balance"],
}


def test_findings_are_listed_by_code_with_their_seeds(make_study):
    out = make_study(variants={"linear": 2, "hidden": 3}, seeds=3, epochs=2)
    edit_runs(out, lambda run: run.update(findings=[FINDING] if run["variant"] == "linear" and run["seed"] else []))
    section = findings.section(tabulate(read_study(out)))
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert table.rows == [["linear", "2 of 3", FINDING["evidence"], "0.99 [0.98, 1]", "0.5"]]
    texts = [block.text for block in section.blocks if isinstance(block, Text)]
    assert "Try: balance the experts." in texts
    assert any("Hardly more experts are in use" in text for text in texts)
    (code,) = [block for block in section.blocks if isinstance(block, Code)]
    assert code.text.startswith("moebius diagnose DIR/")


def test_of_older_runs_the_epochs_tell(make_study):
    out = make_study(variants={"linear": 2, "hidden": 3}, seeds=2, epochs=3)

    def change(run):
        run["epoch"] = 3
        for epoch in run["epochs"]:
            if run["variant"] == "hidden" and run["seed"] == 1 and epoch["epoch"] < 3:
                epoch["findings"] = {"gate": "MB001"}

    edit_runs(out, change)
    section = findings.section(tabulate(read_study(out)))
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert table.rows == [["hidden", "MB001 collapsed gate", "1 of 2", "1 … 2", "0 of 2"]]


def test_nothing_found_is_said(make_study):
    out = make_study(variants={"linear": 2}, seeds=1, epochs=1)
    edit_runs(out, lambda run: run.update(findings=[]))
    section = findings.section(tabulate(read_study(out)))
    assert section.blocks[0] == Text("Nothing was found in the gates and experts of the finished runs.")
