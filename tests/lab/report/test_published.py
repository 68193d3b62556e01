"""Published figures beside ours: the interval of one more run, experts matched, and what the page says."""

import json

import numpy as np
import pytest

from moebius.lab.report.blocks import Points, Table, Text
from moebius.lab.report.published import compare_scores, match_rates, new_run_interval
from moebius.lab.report.sections import published, results, sections_of
from moebius.lab.report.source import read_study
from moebius.lab.report.tables import tabulate


@pytest.fixture
def make_published(make_study):
    """Call it with what is published of each variant to get the study with its tables."""

    def make(variants, seeds=3, about=None, **shape):
        out = make_study(seeds=seeds, epochs=1, **shape)
        document = json.loads((out / "study.json").read_text())
        document["recipe"]["published"] = {"source": "A. Author 2020", "note": "By figure", "variants": variants}
        (out / "study.json").write_text(json.dumps({**document, **(about or {})}))
        return tabulate(read_study(out))

    return make


def rates_of(study, variant, seed):
    table = study.table("activation", split="test", by="domain", variant=variant, seed=seed)
    return {str(name): each["rate"].tolist() for name, each in table.groupby("group", sort=False)}


def blocks_of(section, kind):
    return [block for block in section.blocks if isinstance(block, kind)]


def test_one_more_run_lies_in_the_interval_as_often_as_it_says():
    generator, inside = np.random.default_rng(0), 0
    for _ in range(4000):
        *runs, another = generator.normal(0.6, 0.01, 6)
        low, high = new_run_interval([float(run) for run in runs])
        inside += low <= another <= high
    assert abs(inside / 4000 - 0.95) < 0.011


def test_the_interval_of_one_run_is_none():
    assert new_run_interval([0.6]) is None


def test_a_figure_far_from_all_seeds_lies_outside_and_their_mean_inside(make_published):
    study = make_published({"linear": {"scores": {"test_accuracy": 0.1, "test_loss": 1.4}}})
    ours = [run["accuracy"]["test"] for run in study.runs if run["variant"] == "linear"]
    accuracy, _ = compare_scores(study)
    assert accuracy.lies_inside is False
    assert accuracy.ours.mean == pytest.approx(sum(ours) / 3)
    (inside,) = compare_scores(
        make_published({"linear": {"scores": {"test_accuracy": sum(ours) / 3}}}, folder=study.folder / "b")
    )
    assert inside.lies_inside is True


def test_with_one_seed_nothing_is_judged(make_published):
    section = published.section(make_published({"linear": {"scores": {"test_accuracy": 0.1}}}, seeds=1))
    (table,) = blocks_of(section, Table)
    assert table.rows[0][-2:] == ["–", "–"]
    assert any("one seed does not tell" in block.text for block in blocks_of(section, Text))


def test_experts_are_matched_whatever_their_numbers(make_published):
    study = make_published({})
    ours = rates_of(study, "hidden", 1)
    order = [2, 0, 1]
    shuffled = {name: [rates[place] for place in order] for name, rates in ours.items()}
    study = make_published({"hidden": {"activation": shuffled}}, folder=study.folder / "b")
    match = next(match for match in match_rates(study) if match.seed == 1)
    assert match.partners == order
    assert match.difference == pytest.approx(0)
    assert match.is_alike
    assert all(match.rates[name] == pytest.approx(shuffled[name]) for name in shuffled)


def test_the_matching_has_the_smallest_sum_of_differences(make_published):
    wanted = {"mnist": [0.2, 0.5, 0.3], "cifar10": [0.1, 0.2, 0.7]}
    study = make_published({"hidden": {"activation": wanted}})
    for match in match_rates(study):
        ours = rates_of(study, "hidden", match.seed)

        def cost(partners, ours=ours):
            return sum(abs(wanted[name][j] - ours[name][e]) for name in wanted for j, e in enumerate(partners))

        best = min([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]], key=cost)
        assert cost(match.partners) == pytest.approx(cost(best))


def test_other_numbers_of_experts_and_data_sets_are_left_out(make_published):
    assert match_rates(make_published({"linear": {"activation": {"mnist": [0.2, 0.3, 0.5]}}})) == []


def test_data_sets_that_did_not_run_are_left_out(make_published):
    study = make_published({"linear": {"activation": {"mnist": [0.2, 0.8], "svhn": [0.5, 0.5]}}})
    assert {name for match in match_rates(study) for name in match.rates} == {"mnist"}


def test_the_page_has_section_mark_table_rows_and_files(make_published, holds_together):
    spec = {
        "linear": {"scores": {"test_accuracy": 0.5}, "activation": {"mnist": [0.2, 0.8], "cifar10": [0.9, 0.1]}},
        "hidden": {"ignored": 1, "note": "no rates are given"},
    }
    study = make_published(spec, about={"preset": "quick", "overrides": ["training.epochs=1"]})
    section = published.section(study)
    scores, rates, ignored = blocks_of(section, Table)
    assert scores.rows[0][:3] == ["linear", "accuracy, test", ".500"]
    assert [row[1] for row in rates.rows] == ["published", "seed 0", "seed 1", "seed 2"] * 2
    assert ignored.rows[0][:2] == ["hidden", "1"]
    assert ignored.rows[0][2].endswith("of 3")
    texts = " ".join(block.text for block in blocks_of(section, Text))
    assert "A. Author 2020. By figure." in texts
    assert "preset quick and the values of the command line" in texts
    alike, notes = blocks_of(section, Points)
    assert alike.points[0][1].split(" seeds")[0].endswith("of 3")
    assert notes.points == [("hidden:", "no rates are given")]
    pages = {section.name: section for section in sections_of(study)}
    activation = next(b for b in pages["activation"].blocks if isinstance(b, Table) and b.caption.startswith("linear"))
    assert [row[:2] for row in activation.rows[-2:]] == [["published", "mnist"], ["published", "cifar10"]]
    figure = next(block for block in results.section(study).blocks if block.kind == "panels").figures[0]
    assert "Triangle: published." in figure.caption
    text = holds_together(study.folder)
    assert "A. Author 2020" in text
    assert (study.folder / "tables" / "published.csv").read_text().count("\nlinear,test_accuracy,0.5,") == 1
    assert len((study.folder / "tables" / "published_activation.csv").read_text().splitlines()) == 1 + 3 * 2 * 2


def test_published_rates_in_the_activation_table_follow_the_runs_numbers(make_published):
    study = make_published({})
    ours = rates_of(study, "linear", 0)
    swapped = {name: rates[::-1] for name, rates in ours.items()}
    study = make_published({"linear": {"activation": swapped}}, folder=study.folder / "b")
    pages = {section.name: section for section in sections_of(study)}
    table = next(b for b in pages["activation"].blocks if isinstance(b, Table) and b.caption.startswith("linear"))
    tested = {row[1]: row[2:] for row in table.rows if row[0] == "test"}
    assert {row[1]: row[2:] for row in table.rows if row[0] == "published"} == tested


def test_a_study_of_which_nothing_is_published_has_no_section(make_study):
    assert published.section(tabulate(read_study(make_study(seeds=1, epochs=1)))) is None


def test_a_study_without_figures_says_so(make_published):
    section = published.section(make_published({}))
    assert [block.text for block in section.blocks] == ["A. Author 2020. By figure."]
