"""The sentences at the top of constructed studies, beside figures that the tests compute themselves."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from moebius.lab.report.claims import make_claims
from moebius.lab.report.sections import answer
from moebius.lab.report.source import SCHEMA, read_study
from moebius.lab.report.tables import tabulate

Scores = Mapping[str, Sequence[float]]
# Differences of pairs that vary, so that every test has something to judge by.
WOBBLE = np.array([0.000, 0.004, -0.003, 0.002, -0.004])
BASE = np.array([0.60, 0.61, 0.59, 0.605, 0.595])


def near(shift: float, turn: int = 0) -> list[float]:
    """Five scores at a distance from the baseline's."""
    return [round(float(value), 6) for value in BASE + shift + np.roll(WOBBLE, turn) * (shift != 0 or turn != 0)]


def write_study(
    out: Path,
    scores: Scores,
    experts: Mapping[str, int],
    held_out: Mapping[str, float] | None = None,
    alone: Mapping[str, Any] | None = None,
    oracle: Mapping[str, Sequence[float]] | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
    rows: Mapping[str, np.ndarray] | None = None,
    score: str = "accuracy",
    **recipe: Any,
) -> Path:
    """The two JSON files of a study, and the rows of gates and of single seeds where the first screen needs them."""
    runs = []
    for name, by_seed in scores.items():
        for seed, value in enumerate(by_seed):
            run: dict[str, Any] = {"variant": name, "seed": seed, score: {"test": value}}
            run["gates"] = {"gate": {"experts": experts[name], "active_experts": {"test": experts[name]}}}
            run["parameters"] = 1000 * (1 + experts[name])
            run |= {"oracle": oracle[name][seed]} if oracle and name in oracle else {}
            if held_out:
                run[score]["validation"] = held_out[name] + 0.001 * seed
            if alone and name in alone:
                run["experts_alone"] = [
                    {"paths": [f"experts.{place}"], score: each[seed], f"validation_{score}": held}
                    for place, (each, held) in enumerate(alone[name])
                ]
            runs.append(run)
            table = gate_rows(run, weights or {}, rows or {})
            if table is not None:
                folder = out / name / f"seed-{seed}"
                folder.mkdir(parents=True)
                table.to_parquet(folder / "routing.parquet")
    out.mkdir(exist_ok=True)
    content = {"schema": SCHEMA, "task": {"kind": "classification", "score": score, "loss": "cross_entropy"}}
    content["recipe"] = {"name": "s", "variants": {name: {} for name in scores}, **recipe}
    (out / "study.json").write_text(json.dumps(content))
    (out / "results.json").write_text(json.dumps({"schema": SCHEMA, "runs": runs}))
    return out


def gate_rows(run: Mapping[str, Any], weights: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]):
    name = run["variant"]
    if name not in weights and name not in rows:
        return None
    correct = rows.get(name, np.ones(60))
    columns: dict[str, Any] = {"split": "test", "row": np.arange(len(correct)), "domain": 0, "score": correct}
    columns |= {"label": np.arange(len(correct)) % 5, "prediction": np.arange(len(correct)) % 5}
    of_variant = np.broadcast_to(weights.get(name, np.ones((1, 1))), (len(correct), run["gates"]["gate"]["experts"]))
    columns |= {f"gate_{place}": of_variant[:, place].astype(np.float32) for place in range(of_variant.shape[1])}
    return pd.DataFrame(columns)


def text_of(out: Path) -> str:
    section = answer.section(tabulate(read_study(out)))
    assert section is not None
    return "\n".join(f"{lead} {rest}" for lead, rest in section.blocks[0].points)


def three(value: float) -> str:
    """A figure as the page writes it."""
    return "1.000" if round(value, 3) == 1 else f"{value:.3f}".lstrip("0") if value >= 0.0005 else "0"


def ends(a: Sequence[float], b: Sequence[float] | None = None) -> tuple[float, float, float]:
    """Mean and 95 % interval of values, or of their paired differences."""
    values = np.asarray(a) - (0 if b is None else np.asarray(b))
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    return float(values.mean()), float(low), float(high)


def by(a: Sequence[float], b: Sequence[float]) -> str:
    """How far a is above b, with its interval."""
    return "{} [{}, {}]".format(*map(three, ends(a, b)))


def scored(values: Sequence[float]) -> str:
    return "{} [{}, {}]".format(*map(three, ends(values)))


def uniform(experts: int) -> np.ndarray:
    return np.full((1, experts), 1 / experts)


SHARP = np.array([[0.9, 0.1]])


def test_a_clear_winner_that_held_out_rows_chose(tmp_path):
    scores = {"one": near(0), "even": near(0.05, 1), "mixed": near(0.1, 2)}
    experts = {"one": 1, "even": 2, "mixed": 2}
    held_out = {"one": 0.5, "even": 0.6, "mixed": 0.7}
    text = text_of(write_study(tmp_path / "s", scores, experts, held_out, weights={"even": uniform(2)}))
    assert f"Take mixed: test accuracy {scored(scores['mixed'])} (mean of 5 seeds, 95 % interval)." in text
    assert "Held-out rows chose it; the test rows had no part in that." in text
    p = 2 * stats.ttest_rel(scores["mixed"], scores["one"]).pvalue
    assert p < 0.001
    assert f"better than one by {by(scores['mixed'], scores['one'])} (p <.001, Holm for 2 comparisons)" in text
    assert "better than even" in text
    assert f"The gate pays: mixed is better than one expert (one) by {by(scores['mixed'], scores['one'])}" in text
    assert f"better than uniform weights (even) by {by(scores['mixed'], scores['even'])}." in text


def test_a_tie_is_a_tie(tmp_path):
    scores = {"one": near(0), "mixed": [round(each + step, 6) for each, step in zip(BASE, WOBBLE * 2, strict=True)]}
    text = text_of(write_study(tmp_path / "s", scores, {"one": 1, "mixed": 2}))
    p = stats.ttest_rel(scores["mixed"], scores["one"]).pvalue
    assert p > 0.5
    assert f"Take one, the baseline: test accuracy {scored(scores['one'])}" in text
    assert "the other variant is not shown to be better; no rows were held out" in text
    assert "How sure: not told apart from mixed." in text
    assert "The gate is not shown to pay: mixed is not told apart from one expert (one) at" in text
    assert not re.search(r"better than|worse than", text)


def test_a_lead_that_few_seeds_do_not_show_is_named(tmp_path):
    scores = {"one": [0.6, 0.62], "a": [0.8, 0.837], "b": [0.61, 0.6], "c": [0.6, 0.64]}
    text = text_of(write_study(tmp_path / "s", scores, dict.fromkeys(scores, 1)))
    assert 0.05 / 3 < stats.ttest_rel(scores["a"], scores["one"]).pvalue < 0.05
    assert "Take one, the baseline:" in text
    gain = by(scores["a"], scores["one"])
    assert f"a is ahead by {gain}, which 2 seeds do not show after the correction: train more (--seeds)." in text


def test_a_level_pair_is_level_within_the_margin(tmp_path):
    scores = {"one": near(0), "mixed": near(0.002, 1)}
    held_out = {"one": 0.5, "mixed": 0.6}
    out = write_study(tmp_path / "s", scores, {"one": 1, "mixed": 2}, held_out, margin=0.02)
    text = text_of(out)
    difference = np.subtract(scores["mixed"], scores["one"])
    p = max(
        stats.ttest_1samp(difference, 0.02, alternative="less").pvalue,
        stats.ttest_1samp(difference, -0.02, alternative="greater").pvalue,
    )
    assert f"How sure: level with one within .020 at +{three(difference.mean())} [" in text
    assert f"(p {'<.001' if p < 0.001 else three(p)})" in text
    assert "of these one is the smallest (2,000 parameters to its 3,000)" in text
    assert "The gate does not pay: mixed is level with one expert (one) within .020" in text


def test_one_seed_has_the_interval_of_its_rows_and_says_so(tmp_path):
    generator = np.random.default_rng(0)
    hard = generator.random(400)
    rows = {"one": (hard < 0.6).astype(float), "mixed": (hard < 0.72).astype(float)}
    rows["mixed"][:20] = 0
    scores = {name: [float(values.mean())] for name, values in rows.items()}
    text = text_of(write_study(tmp_path / "s", scores, {"one": 1, "mixed": 2}, rows=rows, weights={"mixed": SHARP}))
    share = rows["mixed"].mean()
    wilson = stats.binomtest(int(rows["mixed"].sum()), 400).proportion_ci(method="wilson")
    expected = (
        f"{three(share)} [{three(wilson.low)}, {three(wilson.high)}] (one seed; 95 % interval over 400 test rows)"
    )
    assert f"Take mixed: test accuracy {expected}." in text
    up, down = (int(((rows["mixed"] - rows["one"]) == sign).sum()) for sign in (1, -1))
    assert stats.binomtest(up, up + down).pvalue < 0.05
    assert f"better than one by {three((up - down) / 400)} [" in text
    assert "One seed: another training may change the order (--seeds 5)." in text


def test_a_collapsed_gate_is_named(tmp_path):
    weights = np.zeros((1, 10))
    weights[0, 3] = 1
    rows = {"one": np.arange(200) % 2 * 1.0, "mixed": np.arange(200) % 2 * 1.0}
    scores = {"one": [0.5], "mixed": [0.5]}
    text = text_of(write_study(tmp_path / "s", scores, {"one": 1, "mixed": 10}, rows=rows, weights={"mixed": weights}))
    assert "Take one, the baseline:" in text
    assert "not told apart from one expert (one) at 0" in text
    assert "It leaves 9 of 10 experts unused (0, 1, 2, 4, 5, 6 and 3 others)." in text


@pytest.mark.parametrize(
    ("left", "words"), [(0.0, "no gate can do better"), (-0.01, ".010 less: by mixing"), (0.02, "is left")]
)
def test_a_mixture_beside_its_oracle(tmp_path, left, words):
    scores = {"one": near(0), "mixed": near(0.1, 2)}
    oracle = {"mixed": [round(each + left + 0.1 * left * (place % 2), 6) for place, each in enumerate(scores["mixed"])]}
    out = write_study(tmp_path / "s", scores, {"one": 1, "mixed": 2}, oracle=oracle)
    text = text_of(out)
    assert f"has {three(float(np.mean(oracle['mixed'])))}" in text
    assert words in text
    assert ("does better than any choice of one expert" in text) == (left < 0)


def test_a_mixture_worse_than_uniform_weights(tmp_path):
    scores = {"one": near(0), "even": near(0.1, 1), "mixed": near(0.05, 2)}
    held_out = {"one": 0.5, "even": 0.7, "mixed": 0.6}
    weights = {"even": uniform(2)}
    text = text_of(write_study(tmp_path / "s", scores, {"one": 1, "even": 2, "mixed": 2}, held_out, weights=weights))
    assert "Take even:" in text
    worse = by(scores["even"], scores["mixed"])
    assert "The gate does not pay: mixed is" in text
    assert f"worse than uniform weights (even) by {worse}" in text


def test_a_mixture_worse_than_its_best_expert(tmp_path):
    scores = {"mixed": near(0)}
    best, other = near(0.03, 1), near(-0.1, 2)
    alone = {"mixed": [(other, 0.5), (best, 0.6)]}
    text = text_of(write_study(tmp_path / "s", scores, {"mixed": 2}, alone=alone))
    assert (
        f"The gate does not pay: mixed is worse than its best expert by itself by {by(best, scores['mixed'])}." in text
    )
    unchosen = {"mixed": [(other, None), (best, None)]}
    out = write_study(tmp_path / "t", scores, {"mixed": 2}, alone=unchosen)
    mean = np.mean([best, other], 0)
    assert f"better than its experts by themselves on average by {by(scores['mixed'], mean)}." in text_of(out)


def test_a_single_variant_was_not_chosen(tmp_path):
    text = text_of(write_study(tmp_path / "s", {"mixed": near(0)}, {"mixed": 2}))
    assert f"mixed: test accuracy {scored(near(0))}" in text
    assert "It is the only variant, so nothing was chosen." in text
    assert "Whether the gate pays is not tested:" in text
    assert "Take" not in text


def test_thirty_variants_name_a_few(tmp_path):
    generator = np.random.default_rng(0)
    scores = {"base": near(0)}
    for place in range(1, 30):
        scores[f"v{place}"] = (BASE + 0.002 * place + generator.normal(0, 0.003, 5)).round(6).tolist()
    out = write_study(tmp_path / "s", scores, dict.fromkeys(scores, 2))
    study = tabulate(read_study(out))
    claims, text = make_claims(study), text_of(out)
    assert claims is not None
    p = {name: stats.ttest_rel(values, scores["base"]).pvalue for name, values in scores.items() if name != "base"}
    ordered, top, better = sorted(p, key=lambda name: p[name]), 0.0, []
    for place, name in enumerate(ordered):
        top = max(top, p[name] * (29 - place))
        better += [name] if top < 0.05 else []
    assert set(claims.better) == set(better)
    assert claims.pick == "v29"
    assert f"Of the {len(better)} variants shown to be better than base it has the largest mean on test" in text
    assert "(p <.001, Holm for 29 comparisons)" in text or re.search(r"p \.\d+, Holm for 29 comparisons", text)
    pairs = 30 * 29 / 2
    ties = [name for name in p if name != "v29" and stats.ttest_rel(scores["v29"], scores[name]).pvalue * pairs >= 0.05]
    assert set(claims.ties) == set(ties)
    assert len(text) < 1200
    figure = answer.section(study).blocks[1].figures[0]
    assert "11 of 30 variants" in figure.caption


def test_a_regression_score_has_its_name(tmp_path):
    scores = {"one": near(0), "mixed": near(0.1, 2)}
    text = text_of(write_study(tmp_path / "s", scores, {"one": 1, "mixed": 2}, score="r2"))
    assert f"Take mixed: test R² {scored(scores['mixed'])}" in text


def test_without_held_out_rows_the_largest_mean_is_partly_chance(tmp_path):
    scores = {"one": near(0), "a": near(0.1, 1), "b": near(0.11, 2)}
    text = text_of(write_study(tmp_path / "s", scores, {"one": 1, "a": 2, "b": 2}))
    assert "Take b:" in text
    assert (
        "Of the 2 variants shown to be better than one it has the largest mean on test, which is partly chance" in text
    )
    assert "no rows were held out to choose one (data.validation)" in text


def test_what_held_out_rows_chose_may_be_worse_on_test(tmp_path):
    scores = {"one": near(0), "a": near(0.1, 1), "b": near(-0.05, 2)}
    text = text_of(write_study(tmp_path / "s", scores, {"one": 1, "a": 2, "b": 2}, {"one": 0.1, "a": 0.2, "b": 0.3}))
    assert "Take b:" in text
    assert f"worse than one by {by(scores['one'], scores['b'])}" in text
    assert "worse than a" in text
    assert "better" not in text.splitlines()[1]


def test_nothing_tells_two_single_runs_without_rows_apart(tmp_path):
    text = text_of(write_study(tmp_path / "s", {"one": [0.6], "mixed": [0.7]}, {"one": 1, "mixed": 2}))
    assert "mixed has the largest mean: test accuracy .700 (one seed, no interval)." in text
    assert "That is no reason to take it" in text
    assert "above one expert (one), untested" in text


def test_a_rule_is_no_gate_that_may_pay(tmp_path):
    out = write_study(tmp_path / "s", {"rule": near(0), "mixed": near(0.02, 1)}, {"rule": 2, "mixed": 2})
    results = json.loads((out / "results.json").read_text())

    def mixture_with(learned):
        for run in results["runs"]:
            run["gates"]["gate"]["learned"] = run["variant"] in learned
        (out / "results.json").write_text(json.dumps(results))
        gate = make_claims(tabulate(read_study(out))).gate
        return gate and gate.mixture

    assert mixture_with(["mixed"]) == "mixed"
    assert mixture_with(["rule"]) == "rule"
    assert mixture_with([]) is None


def test_every_figure_of_the_sentences_is_a_claim(tmp_path):
    scores = {"one": near(0), "even": near(0.05, 1), "mixed": near(0.1, 2)}
    weights = {"even": uniform(2)}
    out = write_study(tmp_path / "s", scores, {"one": 1, "even": 2, "mixed": 2}, weights=weights)
    claims = make_claims(tabulate(read_study(out)))
    assert claims is not None
    assert claims.gate is not None
    contrasts = [claims.contrast, *(control.contrast for control in claims.gate.controls)]
    figures = {three(value) for value in (claims.estimate.mean, claims.estimate.low, claims.estimate.high)}
    for contrast in contrasts:
        difference = contrast.difference
        figures |= {three(abs(value)) for value in (difference.mean, difference.low, difference.high)}
        figures |= {three(contrast.p_holm)}
    assert set(re.findall(r"(?<![\d<])\.\d{3}", text_of(out))) <= figures
    assert math.isclose(claims.gate.controls[0].gain, ends(scores["mixed"], scores["one"])[0])
