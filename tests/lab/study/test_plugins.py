"""What a study depends on where files of the user register kinds."""

import json

import pytest

from moebius.kit.errors import StudyError
from moebius.lab.recipe.plugins import load_plugins
from moebius.lab.study.plan import make_plan
from moebius.lab.study.stages import plan_stages

STAGES = "  staged: {experts: {kind: stage, stage: base}}\nstages: {base: {network: {kind: linear}}}\n"


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(f"text = {str(tmp_path)!r}\n")
    return path


def test_stages_depend_on_plugins_where_there_are_any(planned, small_recipe, plugin, tmp_path):
    data = planned(tmp_path / "study").data
    recipe = small_recipe(added=STAGES)
    _, without = plan_stages(recipe, data)
    assert plan_stages(recipe, data, ())[1] == without
    _, with_plugin = plan_stages(recipe, data, load_plugins([plugin]))
    plugin.write_text("text = 'another'\n")
    _, with_another = plan_stages(recipe, data, load_plugins([plugin]))
    assert len({without["base"], with_plugin["base"], with_another["base"]}) == 3


def test_a_plugin_may_be_added_but_not_to_stages_that_are_trained(planned, small_recipe, plugin, tmp_path):
    data = planned(tmp_path / "other").data
    out = tmp_path / "study"
    make_plan(small_recipe(), data, "cpu", 1, out)
    assert set(json.loads((out / "study.json").read_text())["settled"]) == {"data", "variants"}
    plugins = load_plugins([plugin])
    assert make_plan(small_recipe(), data, "cpu", 1, out, plugins=plugins).plugins == plugins
    before = (out / "study.json").read_bytes()
    with pytest.raises(
        StudyError, match=r"began with the plugin .*mine\.py, and this command does not load it"
    ) as caught:
        make_plan(small_recipe(), data, "cpu", 1, out)
    assert caught.value.fix == f"--plugin {plugin}"
    (copy := tmp_path / "changed" / plugin.name).parent.mkdir()
    copy.write_text(plugin.read_text() + "\n# changed\n")
    with pytest.raises(
        StudyError, match=r"the plugin .*mine\.py has changed since the study began \(SHA-256 "
    ) as caught:
        make_plan(small_recipe(), data, "cpu", 1, out, plugins=load_plugins([copy]))
    assert caught.value.fix.startswith(f"--out {out}-2")
    assert (out / "study.json").read_bytes() == before

    staged = tmp_path / "staged"
    make_plan(small_recipe(added=STAGES), data, "cpu", 1, staged)
    with pytest.raises(StudyError, match="its stages were trained without some of these plugins"):
        make_plan(small_recipe(added=STAGES), data, "cpu", 1, staged, plugins=plugins)


def test_a_job_refuses_a_plugin_that_has_changed(planned, small_recipe, plugin, tmp_path):
    study = planned(tmp_path / "other")
    plan = make_plan(small_recipe(), study.data, "cpu", 2, study.out, plugins=load_plugins([plugin]))
    plugin.write_text("text = 'another'\n")
    with pytest.raises(StudyError, match=r"mine\.py: the file has changed since the study was planned"):
        plan.jobs(plan.runs)[0].load_data()
