"""The task of a recipe."""

import pytest

from moebius.kit.errors import RecipeError
from moebius.lab.recipe.check import guess_facts
from moebius.lab.recipe.load import load_recipe
from moebius.tasks import Classification, MultiTask, Regression

RECIPE = {
    "name": "numbers",
    "data": {"sets": [{"kind": "csv", "path": "a.csv", "target": ["height", "weight"]}]},
    "model": {"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}},
    "variants": {"plain": {}},
}


@pytest.mark.parametrize(
    "task",
    [
        "regression",
        {"kind": "regression", "loss": "quantile", "quantile": 0.9},
        {"kind": "multi_label", "positive_weight": 2.0},
        {"kind": "multi_task", "tasks": {"height": "regression", "weight": {"kind": "regression", "loss": "mae"}}},
    ],
)
def test_a_task_is_a_kind_or_a_mapping(task):
    pool = {"kind": "mlp", "classes": 4, "count": 2}
    layer = {"kind": "multi_gate_mixture", "gates": {"kind": "linear"}, "experts": pool, "towers": {"kind": "linear"}}
    model = {"layers": [layer]} if "tasks" in task else RECIPE["model"]
    recipe = load_recipe({**RECIPE, "task": task, "model": model})
    assert recipe.task == ({"kind": task} if isinstance(task, str) else task)
    again = load_recipe(recipe.resolved())
    assert again.task == recipe.task


def test_without_one_classes_are_learned():
    recipe = load_recipe({**RECIPE, "data": {"sets": [{"kind": "digits"}], "size": 8}})
    assert recipe.task == {"kind": "classification"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "regresion"}, r"task\.kind: no such kind, got 'regresion'; did you mean regression\?"),
        ({"task": {"kind": "regression", "los": "mae"}}, r"task\.los: regression has no such keyword"),
        ({"task": {"kind": "regression", "loss": "l3"}}, r"task\.loss: needs one of mse, mae, huber, quantile"),
        ({"task": {"kind": "regression", "quantile": 2.0}}, r"task\.quantile: needs a number between 0 and 1"),
        ({"task": {"kind": "multi_task"}}, r"task\.tasks: is missing"),
        (
            {"task": {"kind": "multi_task", "tasks": {"a": {"kind": "tokens", "channels": 3}}}},
            r"task\.tasks\.a\.channels: needs text",
        ),
        (
            {"task": {"kind": "multi_task", "tasks": {"a": "regression"}, "weights": {"b": 1.0}}},
            r"task\.weights\.b: no task is called so",
        ),
        (
            {"task": "regression", "data": {**RECIPE["data"], "classes": [0]}},
            r"data\.classes: chooses rows by their class, and rows of this task have none",
        ),
        (
            {"task": "regression", "stages": {"one": {"network": {"kind": "linear"}, "classes": [0]}}},
            r"stages\.one\.classes: chooses rows by their class, and rows of this task have none",
        ),
    ],
)
def test_what_does_not_fit_is_refused_at_its_key(changes, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe({**RECIPE, **changes})


def test_models_are_tried_with_as_many_outputs_as_the_task_needs():
    data = RECIPE["data"]
    assert guess_facts(data, Regression())["classes"] == 2
    assert guess_facts(data, Classification())["classes"] == 10
    several = MultiTask({"kind": Classification(), "price": Regression()})
    assert guess_facts(data, several)["outputs"] == {"kind": 10, "price": 1}


def test_the_domains_of_a_table_are_not_known_before_it_is_read():
    gated = {**RECIPE, "task": "regression", "model": {**RECIPE["model"], "gate": {"kind": "domain"}}}
    with pytest.raises(RecipeError, match="needs one expert per domain, and the data has 1, got 2"):
        load_recipe(gated)
    sets = [{**RECIPE["data"]["sets"][0], "domain": "region"}]
    assert load_recipe({**gated, "data": {"sets": sets}}).variants
