from pathlib import Path

import pytest

from moebius.kit.errors import RecipeError, UnknownKindError
from moebius.lab.recipe.check import guess_facts
from moebius.lab.recipe.load import load_recipe
from moebius.lab.yaml_text import read_yaml, write_yaml


def test_file_then_preset_then_overrides_then_seeds(written):
    path = written()
    recipe = load_recipe(path)
    assert (recipe.training.epochs, recipe.data.train_rows, recipe.seeds) == (2, None, 1)
    recipe = load_recipe(path, preset="quick")
    assert (recipe.training.epochs, recipe.data.train_rows, recipe.preset) == (1, 100, "quick")
    recipe = load_recipe(path, ["training.epochs=5", "seeds=2", "training.epochs=7"], "quick", seeds=3)
    assert (recipe.training.epochs, recipe.data.train_rows, recipe.seeds) == (7, 100, 3)
    assert recipe.overrides == ("training.epochs=5", "seeds=2", "training.epochs=7")


def test_numbers_with_an_exponent_are_numbers(written):
    assert load_recipe(written()).training.optimizer.lr.plain == 0.001
    assert load_recipe(written(), ["training.optimizer.lr=3E-4"]).training.optimizer.lr.plain == 0.0003


def test_variants_are_laid_over_what_they_share(written):
    variants = load_recipe(written()).resolved_variants()
    assert list(variants) == ["shared", "hidden", "linear"]
    assert variants["shared"].model == {
        "gate": {"kind": "mlp", "hidden": [4]},
        "router": {"kind": "soft"},
        "experts": {"kind": "linear", "count": 2},
        "combine": {"kind": "weighted_sum"},
        "execution": "auto",
    }
    assert variants["hidden"].model["gate"] == {"kind": "mlp", "hidden": [8]}
    assert variants["linear"].model["gate"] == {"kind": "linear"}


def test_a_variant_s_training_is_laid_over_the_recipe_s(written):
    own = "linear: {training: {epochs: 9, optimizer: {kind: sgd, momentum: 0.9}, gate: {freeze: true}}"
    path = written(("linear: {gate", f"{own}, gate"))
    variants = load_recipe(path, ["training.optimizer.betas=[0.8, 0.9]"]).resolved_variants()
    own, shared = variants["linear"].training, variants["shared"].training
    assert (own.epochs, own.optimizer.kind, own.optimizer.lr.plain, own.gate.freeze) == (9, "sgd", 0.001, True)
    assert own.optimizer.keywords == {"momentum": 0.9}
    assert (shared.epochs, shared.optimizer.kind, shared.gate.freeze) == (2, "adam", False)
    assert shared.optimizer.keywords == {"betas": [0.8, 0.9]}


def test_an_optimizer_s_kind_stands_for_the_mapping(written):
    path = written(("{kind: adam, lr: 1e-3}", "sgd"), ("{gate: {kind: linear}}", "{training: {optimizer: {lr: 0.1}}}"))
    variants = load_recipe(path).resolved_variants()
    optimizers = [variants[name].training.optimizer for name in ("shared", "linear")]
    assert [(each.kind, each.lr.plain) for each in optimizers] == [("sgd", 0.001), ("sgd", 0.1)]


def test_an_override_reaches_into_a_variant_and_leaves_the_others(written):
    variants = load_recipe(written(), ["variants.shared.gate.hidden=[128]"]).resolved_variants()
    assert variants["shared"].model["gate"]["hidden"] == [128]
    assert variants["hidden"].model["gate"]["hidden"] == [8]


def test_an_override_of_an_aliased_value_leaves_its_aliases(written):
    path = written(
        ("hidden: {gate: {hidden: [8]}}", "hidden: {gate: {hidden: &w [8]}}"), ("{kind: linear}}", "{hidden: *w}}")
    )
    variants = load_recipe(path, ["variants.hidden.gate.hidden.0=16"]).resolved_variants()
    assert variants["hidden"].model["gate"]["hidden"] == [16]
    assert variants["linear"].model["gate"]["hidden"] == [8]


def test_a_resolved_recipe_is_a_recipe_that_says_the_same(written, tmp_path):
    recipe = load_recipe(written(), ["variants.linear.gate.bias=false", "training.clip_norm=1"], "quick", seeds=4)
    again = tmp_path / "again.yaml"
    again.write_text(write_yaml(recipe.resolved()))
    copy = load_recipe(str(again))
    assert (copy.file, copy.variants) == (recipe.file, recipe.variants)


def test_losses_take_a_schedule_for_a_weight(written):
    loss = "losses: [{kind: batch_entropy, weight: {kind: linear, start: 0, end: 0.1, epochs: 2}}]"
    recipe = load_recipe(written(("epochs: 2, optimizer", f"epochs: 2, {loss}, optimizer")))
    assert recipe.training.losses[0].weight(2) == 0.1


@pytest.mark.parametrize(
    ("name", "message", "fix"),
    [
        ("quickstrat", "no recipe is called 'quickstrat'", "did you mean quickstart?"),
        ("none/such.yaml", "recipe none/such.yaml: no such file", "the path of a YAML file, or a shipped name: one of"),
        ("quickstrat.yaml", "recipe quickstrat.yaml: no such file", "did you mean quickstart?"),
    ],
)
def test_an_unknown_recipe_names_what_comes_close(name, message, fix):
    with pytest.raises(UnknownKindError) as caught:
        load_recipe(name)
    assert caught.value.message == message
    assert fix in caught.value.fix


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(UnknownKindError, match="is a folder"):
        load_recipe(str(tmp_path))


def test_an_unknown_preset_names_what_comes_close(written):
    with pytest.raises(UnknownKindError) as caught:
        load_recipe(written(), preset="quik")
    assert "is called 'quik'" in caught.value.message
    assert caught.value.fix == "did you mean quick?"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "needs a mapping of keys to values, got nothing"),
        (b"- a\n", "needs a mapping of keys to values, got a list"),
        (b"name: \xff\n", "needs text in UTF-8, byte 6 is none"),
        (
            b"name: a\nname: b\n",
            'line 2: no valid YAML: found duplicate key "name" with value "b"',
        ),
        (b"{}", "name: is missing"),
    ],
)
def test_a_file_that_is_no_recipe_says_why(tmp_path, content, message):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    assert f"{path}: {message}" in str(caught.value)


def test_no_data_no_variants_are_missing_keys(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("name: x")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    assert caught.value.problems == ("data: is missing", "variants: is missing")


WRONG = [
    ((case["old"], case["new"]), case["line"])
    for case in read_yaml((Path(__file__).parent / "wrong.yaml").read_text(encoding="utf-8"), "wrong.yaml")
]


@pytest.mark.parametrize(("change", "line"), WRONG, ids=[line.split(",")[0] for _, line in WRONG])
def test_one_wrong_value_gives_one_line(written, change, line):
    path = written(change)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value) == f"{path}: {line}"


def test_a_wrong_value_that_variants_share_is_reported_once_where_it_stands(written):
    path = written(("hidden: [4]", "hidden: []"))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.problems == ("model.gate.hidden: needs at least one width, got []; hidden: [64]",)


def test_all_problems_come_together(written):
    path = written(*(WRONG[place][0] for place in (0, 1, 2, 10, 14)), ("hidden: [8]", "hidden: []"))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, ["training.batch_size=x", "foo", "seeds=[", "variants.linaer.gate.bias=true"], preset="quick")
    keys = [line.split(": ")[0] for line in caught.value.problems]
    assert sorted(keys) == sorted(
        [
            "titel",
            "data.sise",
            "training.epoch",
            "training.optimizer.kind",
            "model.execution",
            "variants.hidden.gate.hidden",
            "training.batch_size",
            "override",
            "seeds",
            "variants.linaer",
        ]
    )
    assert all(line.startswith(f"{path}: ") for line in str(caught.value).splitlines())


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "trainin.epochs=2",
            "trainin: no such key, got {'epochs': 2} (from trainin.epochs=2); did you mean training or pretraining?",
        ),
        ("training.epochs=two", "training.epochs: needs a whole number, got 'two' (from training.epochs=two)"),
        (
            "variants.linear.gate.hiden=[4]",
            "variants.linear.gate.hiden: linear has no such keyword, got [4] (from variants.linear.gate.hiden=[4]);",
        ),
        (
            "variants.linaer.gate.bias=no",
            "variants.linaer: no such variant, got 'no' (from variants.linaer.gate.bias=no);",
        ),
        (
            "model.gate=mlp",
            "model.gate: needs a mapping with a kind, got 'mlp' (from model.gate=mlp); such as {kind: mlp}",
        ),
        ("epochs", "override: needs the form key=value, got 'epochs'; such as training.epochs=2"),
    ],
)
def test_a_wrong_override_is_named(written, override, line):
    path = written()
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, [override])
    assert caught.value.problems[0].startswith(line)


def test_the_fix_of_an_override_is_an_override_in_quotes(written):
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(), ["variants.hidden.gate.hidden=[]", "training.losses=[{kind: best_fit}]"])
    assert caught.value.problems == (
        "variants.hidden.gate.hidden: needs at least one width, got [] (from variants.hidden.gate.hidden=[]); "
        "'variants.hidden.gate.hidden=[64]'",
    )


def test_a_local_file_is_found_by_its_path(written, monkeypatch):
    path = Path(written())
    monkeypatch.chdir(path.parent)
    assert load_recipe("small.yaml").name == load_recipe(str(path)).name == "small"


TABLE = "sets: [{kind: sklearn, name: iris}]"
IMAGES = "sets: [{kind: digits}], size: 8, test_rows: 50"


def test_models_for_a_table_are_built_without_reading_it(written):
    part = "{kind: table, hidden: [4, 4], residual: true, numeric: piecewise}"
    path = written((IMAGES, TABLE), ("{gate: {kind: linear}}", f"{{gate: {{kind: table}}, experts: {part}}}"))
    recipe = load_recipe(path)
    assert recipe.resolved_variants()["linear"].model["experts"]["numeric"] == "piecewise"
    assert guess_facts(recipe.data.model_dump()) == {
        "features": 10,
        "cardinalities": [4, 4],
        "classes": 10,
        "domains": 1,
    }


@pytest.mark.parametrize(
    ("replacements", "line"),
    [
        ([(IMAGES, TABLE), ("kind: linear}}", "kind: conv}}")], r"variants\.linear\.gate\.channels: is missing"),
        ([(IMAGES, "sets: [{kind: sklearn, name: irises}]")], r"data\.sets\[0\]\.name: needs one of iris, wine"),
        ([(IMAGES, "sets: [{kind: csv, path: a.csv}]")], r"data\.sets\[0\]\.target: is missing, csv needs it"),
        ([(IMAGES, "sets: [{kind: sklearn, name: iris}, {kind: digits}]")], r"data\.sets: needs a single set"),
        ([(IMAGES, TABLE), ("epochs: 2", "epochs: 2, augment: [{kind: flip}]")], r"training\.augment: changes images"),
        ([("size: 8", "size: 8, validation: 1.5")], r"data\.validation: needs a number below 1"),
        (
            [("size: 8", "size: 8, validation: 0.1, validation_rows: 5")],
            r"data\.validation: cannot stand beside validation_rows, .*; remove validation_rows, or remove validation",
        ),
    ],
)
def test_what_a_table_cannot_have_is_refused(written, replacements, line):
    with pytest.raises(RecipeError, match=line):
        load_recipe(written(*replacements))


def test_held_out_rows_by_their_share_serve_watch(written):
    recipe = load_recipe(written(("size: 8", "size: 8, validation: 0.1"), ("epochs: 2", "epochs: 2, watch: {}")))
    assert recipe.data.validation == 0.1
