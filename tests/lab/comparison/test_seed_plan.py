"""Plans of a real study: figures are those of the statistics on its results.json."""

import json
import shutil

import pytest

import moebius as mb
from moebius.kit.errors import ArgumentError, StudyError
from moebius.lab.statistics.difference import paired
from moebius.lab.statistics.power import power, sd_interval, seeds_for_equivalence, seeds_needed


def test_each_pair_is_planned_by_its_own_differences(study, results):
    plan = mb.lab.plan_seeds(study, difference=0.02)
    assert (plan.baseline, plan.comparisons, [pair.name for pair in plan.pairs]) == ("poor", 2, ["good", "twin"])
    score = {name: {s: results[name, s]["accuracy"]["test"] for s in range(3)} for name in ("poor", "good")}
    sd = paired(score["good"], score["poor"]).sd
    good = plan.pairs[0]
    assert (good.sd, (good.sd_low, good.sd_high)) == (sd, sd_interval(sd, 3))
    assert good.power == power(0.02, sd, 3, 0.025)
    ends = [seeds_needed(0.02, end, 0.8, 0.025) for end in (sd, *sd_interval(sd, 3))]
    assert [good.to_find.seeds, good.to_find.low, good.to_find.high] == ends
    assert good.to_show_level.seeds == seeds_for_equivalence(0.02, sd, 0.8, 0.025)


def test_the_options_change_what_is_asked(study):
    plan = mb.lab.plan_seeds(study, 0.02)
    alone = mb.lab.plan_seeds(study, 0.02, comparisons=1)
    surer = mb.lab.plan_seeds(study, 0.02, power=0.95)
    assert alone.pairs[0].to_find.seeds <= plan.pairs[0].to_find.seeds <= surer.pairs[0].to_find.seeds
    assert alone.pairs[0].power > plan.pairs[0].power == surer.pairs[0].power
    assert mb.lab.plan_seeds(study, 0.02, baseline="good").baseline == "good"


def test_equal_models_have_no_spread_to_plan_by(study):
    plan = mb.lab.plan_seeds(study, baseline="good")
    twin = next(pair for pair in plan.pairs if pair.name == "twin")
    assert (twin.mean, twin.sd, twin.to_find) == (0, None, None)
    assert "nothing is known of how differences vary" in " ".join(plan.text().split())


def test_what_it_gives(study):
    plan = mb.lab.plan_seeds(study)
    document = json.loads(json.dumps(plan.to_dict(), allow_nan=False))
    assert document["pairs"][0]["to_find"]["seeds"] == plan.pairs[0].to_find.seeds
    assert plan.frame()["to_find"].tolist() == [pair.to_find.seeds for pair in plan.pairs]
    assert max(map(len, repr(plan).splitlines())) <= 80
    assert "each at 0.05/2 (Holm's first step)" in " ".join(plan.text().split())


def test_what_it_refuses(study, tmp_path):
    refused = [{"difference": 0.0}, {"power": 1.0}, {"level": 0.0}, {"comparisons": 0}, {"baseline": "godo"}]
    for options in refused:
        with pytest.raises(ArgumentError) as error:
            mb.lab.plan_seeds(study, **options)
        assert error.value.fix
    with pytest.raises(StudyError, match="is no folder of a study"):
        mb.lab.plan_seeds(study / "good")
    single = tmp_path / "single"
    shutil.copytree(study, single)
    for seed in (1, 2):
        for name in ("poor", "good", "twin"):
            shutil.rmtree(single / name / f"seed-{seed}")
    with pytest.raises(StudyError, match="one seed tells nothing of how differences vary") as error:
        mb.lab.plan_seeds(single)
    assert error.value.fix == f"moebius run small.yaml --seeds 5 --out {single}"


def test_the_command_prints_text_and_json(study):
    from typer.testing import CliRunner

    from moebius.lab.cli import app

    text = CliRunner().invoke(app, ["plan", str(study), "--difference", "0.02"])
    assert text.exit_code == 0
    assert text.output.startswith("accuracy, minus poor, paired by seed")
    document = CliRunner().invoke(app, ["plan", str(study), "--difference", "0.02", "--json"])
    assert json.loads(document.output) == mb.lab.plan_seeds(study, 0.02).to_dict()
    assert CliRunner().invoke(app, ["plan", str(study), "--power", "2"]).exit_code == 2
