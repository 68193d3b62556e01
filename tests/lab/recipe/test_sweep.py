"""Sweeps: the points, their names, what each changes, and what is refused before a run begins."""

import pytest

from moebius.kit.errors import RecipeError
from moebius.lab.checks.problems import parse_path
from moebius.lab.recipe.load import load_recipe
from moebius.lab.recipe.schema import Point, SweepSpec
from moebius.lab.recipe.sweep.names import LONGEST, point_name, short_keys
from moebius.lab.recipe.sweep.propose import with_points
from moebius.lab.recipe.sweep.values import combine_values
from moebius.lab.yaml_text import write_yaml

HELD_OUT = "data.validation=0.2"
RATES = "sweep.keys.training.gate.lr=[1e-4, 1e-3]"


@pytest.fixture
def load(written):
    """The small recipe with overrides, rows held out."""
    return lambda *overrides: load_recipe(written(), [HELD_OUT, *overrides])


def names(recipe):
    return [variant.name for variant in recipe.variants]


def value_at(variant, key):
    head, *path = parse_path(key)
    value = variant.training.model_dump(mode="json") if head == "training" else variant.model
    for part in path:
        value = value[part]
    return value


def test_a_grid_puts_all_combinations_in_the_place_of_the_swept_variants(load):
    recipe = load(RATES, "sweep.keys.model.experts.count=[2, 3, 4]", "sweep.variants=[shared, linear]")
    points = [f"lr={rate},count={count}" for rate in ("0.0001", "0.001") for count in (2, 3, 4)]
    assert names(recipe) == [*(f"shared@{p}" for p in points), "hidden", *(f"linear@{p}" for p in points)]
    for variant in recipe.variants:
        for key, value in variant.point.values.items() if variant.point else ():
            assert value_at(variant, key) == value


def test_a_point_changes_nothing_else_than_its_keys(load):
    plain, swept = load().resolved_variants(), load(RATES).resolved_variants()
    for name in ("shared", "hidden", "linear"):
        point = swept[f"{name}@lr=0.001"]
        assert point.model == plain[name].model
        changed = plain[name].training.model_dump() | {"gate": point.training.gate.model_dump()}
        assert point.training.model_dump() == changed
        assert point.training.gate == plain[name].training.gate.model_copy(update={"lr": point.training.gate.lr})


def test_a_point_wins_over_what_its_variant_says(load):
    own = "variants.linear.training.gate.lr=0.5"
    assert value_at(load(own, RATES).resolved_variants()["linear@lr=0.001"], "training.gate.lr") == 0.001


def test_values_may_be_lists_mappings_schedules_and_entries_of_lists(load):
    recipe = load(
        "training.losses=[{kind: batch_entropy}, {kind: sample_entropy, weight: 0.1}]",
        "sweep.variants=[hidden]",
        "sweep.keys.model.gate.hidden=[[4], [8, 8]]",
        "sweep.keys.training.losses[1].weight=[0.01, 1]",
        "sweep.keys.training.optimizer.lr=[{kind: cosine, start: 1e-2, end: 0, epochs: 2}]",
    )
    wide = recipe.resolved_variants()["hidden@hidden=8-8,weight=1,lr=cosine-start0.01-end0-epochs2"]
    assert wide.model["gate"] == {"kind": "mlp", "hidden": [8, 8]}
    assert [loss.weight.plain for loss in wide.training.losses] == [1.0, 1]
    assert wide.training.optimizer.lr.plain["kind"] == "cosine"


def test_a_kind_replaces_what_stands_below_it(load):
    recipe = load("sweep.variants=[hidden]", "sweep.keys.model.gate=[{kind: linear}, {kind: mlp, hidden: [2]}]")
    gates = [variant.model["gate"] for variant in recipe.variants if variant.point]
    assert gates == [{"kind": "linear"}, {"kind": "mlp", "hidden": [2]}]


def test_a_key_of_a_variant_sweeps_that_variant_alone(load):
    recipe = load("sweep.keys.variants.hidden.gate.hidden=[[2], [3]]")
    assert names(recipe) == ["shared", "hidden@hidden=2", "hidden@hidden=3", "linear"]


def test_more_trials_and_further_keys_keep_the_draws(load):
    keys = {"a": {"low": 1e-5, "high": 1e-1, "scale": "log"}, "b": {"low": 2, "high": 9}}
    few = SweepSpec(keys=keys, method="random", trials=5)
    more = SweepSpec(keys={**keys, "c": [1, 2]}, method="random", trials=50)
    first, second = combine_values(few, few.keys), combine_values(more, more.keys)
    assert [{key: point[key] for key in keys} for point in second[:5]] == first
    assert {point["b"] for point in second} == set(range(2, 10))
    below = sum(point["a"] < 1e-3 for point in second) / len(second)
    assert 0.3 < below < 0.7
    assert len({point["a"] for point in second}) > 45
    again = SweepSpec(keys=keys, method="random", trials=5, seed=1)
    assert combine_values(again, again.keys) != first


def test_a_grid_of_a_range_has_its_ends(load):
    recipe = load(
        "sweep.keys.training.gate.lr={low: 1e-4, high: 1e-1, scale: log, count: 4}", "sweep.variants=[linear]"
    )
    assert [v.point.values["training.gate.lr"] for v in recipe.variants if v.point] == [1e-4, 1e-3, 1e-2, 1e-1]


def test_names_are_short_unique_and_fit_a_folder():
    keys = ["training.gate.lr", "model.gate.lr", "variants.a.training.gate.lr"]
    assert len(set(short_keys(keys))) == 3
    long = point_name("v", {"a.b": "x" * 300})
    assert len(long) <= LONGEST
    assert long != point_name("v", {"a.b": "x" * 301})
    assert point_name("v", {"a": "../b c"}) == "v@a=..-b-c"


def test_the_resolved_recipe_is_a_recipe_again(load, tmp_path):
    recipe = load(RATES)
    path = tmp_path / "again.yaml"
    path.write_text(write_yaml(recipe.resolved()), encoding="utf-8")
    assert load_recipe(str(path)).variants == recipe.variants


def test_optuna_has_only_the_points_that_were_proposed(load):
    recipe = load(RATES, "sweep.method=optuna", "sweep.variants=[linear]")
    assert names(recipe) == ["shared", "hidden"]
    grown = with_points(recipe, [Point("linear", {"training.gate.lr": 1e-3})])
    assert names(grown) == ["shared", "hidden", "linear@lr=0.001"]
    assert grown.file == recipe.file


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["sweep.keys.training.gaet.lr=[1]"],
            "sweep.keys.training.gaet.lr[0]: no such key (in shared, hidden, linear)",
        ),
        (
            ["sweep.keys.training.gate.lr=[1e-3, -1]"],
            "sweep.keys.training.gate.lr[1]: needs a number of at least 0 (in shared, hidden, linear), got -1",
        ),
        (
            ["sweep.keys.model.gate.hidden=[[4], []]", "sweep.variants=[hidden]"],
            "sweep.keys.model.gate.hidden[1]: needs at least one width (in hidden), got []",
        ),
        (
            ["sweep.keys.model.gate.hidden=[[4], [5]]"],
            "sweep.keys.model.gate.hidden: linear has no such keyword (in linear)",
        ),
        (["sweep.keys.data.size=[8]"], "sweep.keys.data.size: needs a key of the models or of their training"),
        (["sweep.keys.variants.hiden.gate.hidden=[[4]]"], "sweep.keys.variants.hiden.gate.hidden: no such variant"),
        (["sweep.keys.training.gate.lr=[1, 1]"], "sweep.keys.training.gate.lr[1]: occurs twice, got 1"),
        (["sweep.keys.training.gate.lr=[]"], "sweep.keys.training.gate.lr: needs a list of values, or a range, got []"),
        (
            ["sweep.keys.training.gate.lr={low: 1, high: 2}"],
            "sweep.keys.training.gate.lr.count: is missing, for a grid needs a number of values",
        ),
        (
            ["sweep.keys.training.gate.lr={low: 0, high: 2, scale: log, count: 2}"],
            "sweep.keys.training.gate.lr.low: needs a number above 0, for the scale is log, got 0",
        ),
        (
            ["sweep.keys.training.gate.lr={low: 2, high: 2, count: 2}"],
            "sweep.keys.training.gate.lr.high: needs a number above low (2), got 2",
        ),
        (
            ["sweep.keys.training.gate.lr={low: 0.1, high: 0.9, count: 500}"],
            "sweep.keys: make 1,500 points, and sweep.most allows 1,000",
        ),
        ([RATES, "sweep.variants=[linaer]"], "sweep.variants[0]: no such variant, got 'linaer'"),
        (
            ["sweep.keys.variants.hidden.gate.hidden=[[2]]", "sweep.variants=[hidden, linear]"],
            "sweep.variants[1]: no swept key applies to it, got 'linear'",
        ),
        ([RATES, "sweep.methd=grid"], "sweep.methd: no such key, got 'grid'"),
        (["sweep.method=grid"], "sweep.keys: is missing"),
    ],
)
def test_a_wrong_sweep_is_refused_at_its_key(load, overrides, line):
    with pytest.raises(RecipeError) as caught:
        load(*overrides)
    assert len(caught.value.problems) == 1, caught.value.problems
    assert caught.value.problems[0].startswith(line)


def test_a_sweep_needs_rows_that_are_held_out(written):
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(), [RATES])
    assert [line.partition(", got")[0] for line in caught.value.problems] == [
        "data.validation: must hold rows out, for a sweep is decided by them and never by the test rows"
    ]
    assert caught.value.problems[0].endswith("data.validation=0.1")


def test_most_admits_a_sweep_that_is_meant_to_be_large(load):
    keys = "sweep.keys.training.gate.lr={low: 0.1, high: 0.9, count: 2}"
    assert len(load(keys, "sweep.most=6").variants) == 6
    with pytest.raises(RecipeError, match="6"):
        load(keys, "sweep.most=5")


def test_a_start_of_a_variant_keeps_the_layers_that_variants_share():
    mixture = {"kind": "mixture", "gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}}
    recipe = load_recipe(
        {
            "name": "layered",
            "data": {"sets": [{"kind": "digits"}], "size": 8, "validation": 0.2},
            "model": {"layers": [mixture]},
            "variants": {"plain": {}, "keras": {"init": "keras"}},
            "sweep": {"keys": {"training.optimizer.lr": [0.01, 0.1]}},
        }
    )
    models = [variant.model for variant in recipe.variants]
    assert len(models) == 4
    assert all(model["layers"] == models[0]["layers"] for model in models)
    assert [model.get("init") for model in models] == [None, None, "keras", "keras"]
