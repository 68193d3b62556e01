"""Every shipped recipe is validated, built and run for a step; what the studies prescribe is held to their numbers."""

import pytest
import torch

from moebius.core.recording import record
from moebius.lab.model.build import StageNetworks, build_model
from moebius.lab.model.resolve import resolve
from moebius.lab.model.shapes import row_shape
from moebius.lab.recipe.check import guess_facts
from moebius.lab.recipe.load import load_recipe
from moebius.lab.recipe.schema import Variant
from moebius.lab.recipe.shipped import find_recipe, read_recipe, shipped_recipes
from moebius.lab.recipe.sizes import sizes
from moebius.lab.recipe.stages import stage_specs
from moebius.lab.training.annealing import Annealing
from moebius.lab.training.call_model import call_model
from moebius.lab.training.objective import Objective
from moebius.lab.training.settings import Settings
from moebius.lab.yaml_text import write_yaml
from moebius.storage.spec import describe
from moebius.storage.tensors import stored_tensors
from moebius.tasks._choice import as_task
from moebius.tasks.multi_task import MultiTask

NAMES = (
    *("cnn-experts", "expert-count", "linear-experts", "one-active", "quickstart", "unlike-experts"),
    *("pairwise-cifar10", "hierarchical-cifar10"),
)
MNIST_AND_CIFAR = [{"kind": "hub", "name": "ylecun/mnist"}, {"kind": "hub", "name": "uoft-cs/cifar10"}]


def test_the_studies_are_there():
    assert set(NAMES) <= set(shipped_recipes())


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_recipe_and_its_presets_are_valid_and_say_what_to_expect(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.title
    assert recipe.description
    assert recipe.time
    header = [line for line in find_recipe(name).read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert {"Expect", "Hardware", "Time"} <= {
        part for line in header for part in ("Expect", "Hardware", "Time") if f"{part}:" in line
    }
    assert "quick" in recipe.file.presets
    for preset in recipe.file.presets:
        assert load_recipe(name, preset=preset).file != recipe.file


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_resolved_recipe_says_the_same(name, tmp_path):
    path = tmp_path / "resolved.yaml"
    path.write_text(write_yaml(load_recipe(name, preset="quick").resolved()), encoding="utf-8")
    assert load_recipe(str(path)).file == load_recipe(name, preset="quick").file


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_variant_is_built_and_run_for_a_step(name):
    recipe = load_recipe(name)
    task = as_task(recipe.task)
    facts = guess_facts(recipe.data.model_dump(), task)
    torch.manual_seed(0)
    x = torch.rand(2, *row_shape(facts))
    domain = torch.tensor([0, facts["domains"] - 1])
    specs = stage_specs(recipe.stages, facts)
    for variant in (*recipe.stages, *recipe.variants):
        own = facts if isinstance(variant, Variant) else specs[variant.name]["facts"]
        model = build_model(variant.model, own, StageNetworks(specs))
        resolved = {name: value for name, value in resolve(variant.model, own, specs).items() if name != "room"}
        assert without_stages(describe(model)) == without_stages(resolved)
        settings = Settings.model_validate(variant.training.model_dump())
        objective = Objective(task.for_model(model), [settings])
        with Annealing(model, settings.router).at(0.0), record(model, outputs=objective.needs_outputs) as log:
            output = call_model(model, x, domain)
        target = make_target(task, own)
        task.check(output, target)
        total = objective(output, target, [log], 0.0)[0]["loss"]
        assert total.isfinite()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert total.requires_grad == bool(trained)
        if trained:
            total.backward()
            assert all(parameter.grad.isfinite().all() for parameter in trained if parameter.grad is not None)


def make_target(task, facts):
    """Targets of two rows, the first and the last class among them."""
    if isinstance(task, MultiTask):
        return {name: make_target(each, {"classes": facts["outputs"][name]}) for name, each in task.tasks.items()}
    if task.target_type == "numbers":
        return torch.randn(2)
    labels = torch.tensor([0, facts["classes"] - 1])
    return labels.view(2, 1, 1).expand(2, *facts["positions"]) if "positions" in facts else labels


def without_stages(spec):
    """A Spec in which the networks of stages say nothing: a resolved one names them by the stage's whole model."""
    if isinstance(spec, list):
        return [without_stages(item) for item in spec]
    if not isinstance(spec, dict):
        return spec
    return {name: None if name == "network" else without_stages(value) for name, value in spec.items()}


@pytest.mark.parametrize("name", ["linear-experts", "cnn-experts", "expert-count", "unlike-experts"])
def test_studies_share_data_and_training(name):
    recipe = load_recipe(name)
    assert recipe.data.sets == MNIST_AND_CIFAR
    assert (recipe.data.size, recipe.data.color, recipe.data.train_rows, recipe.data.test_rows) == (
        32,
        "grey",
        None,
        None,
    )
    assert (recipe.training.epochs, recipe.training.batch_size) == (20, 128)
    assert recipe.training.optimizer.model_dump() == {"kind": "adam", "lr": 0.001}


def test_linear_experts_is_study_1():
    variants = load_recipe("linear-experts").resolved_variants()
    assert {name: variant.model["gate"] for name, variant in variants.items()} == {
        "single": {"kind": "uniform"},
        "predesigned": {"kind": "domain"},
        "linear": {"kind": "linear"},
        "hidden": {"kind": "mlp", "hidden": [64]},
    }
    assert {name: variant.model["experts"]["count"] for name, variant in variants.items()} == {
        "single": 1, "predesigned": 2, "linear": 2, "hidden": 2
    }  # fmt: skip
    assert {variant.model["combine"]["kind"] for variant in variants.values()} == {"log_mixture"}
    # 1,024 pixels and a bias: 20 classes per expert, 2 scores of a linear gate, 64 hidden units and 2 scores.
    assert {size.variant: size.parameters for size in sizes(load_recipe("linear-experts"))} == {
        "single": 1025 * 20,
        "predesigned": 2 * 1025 * 20,
        "linear": 2 * 1025 * 20 + 1025 * 2,
        "hidden": 2 * 1025 * 20 + 1025 * 64 + 65 * 2,
    }


def test_cnn_experts_is_study_2():
    recipe = load_recipe("cnn-experts")
    settings = ("entropy", "variance", "variance-literal")
    published = {
        "predesigned", "conv", "dense", *(f"{gate}-{setting}" for gate in ("conv", "dense") for setting in settings)
    }  # fmt: skip
    ours = {
        "conv-standardised", "standardised-conv", "unit-predesigned", "unit-conv", "unit-dense",
        "unit-conv-variance-literal", "unit-conv-standardised",
    }  # fmt: skip
    variants = recipe.resolved_variants()
    assert set(variants) == published | ours
    gates = {
        "predesigned": {"kind": "domain"},
        "conv": {"kind": "conv", "filters": [64, 64], "hidden": [64], "activation": "none"},
        "dense": {"kind": "mlp", "hidden": [64]},
    }
    for name, variant in variants.items():
        scale = next((each for each in ("unit", "standardised") if name.startswith(f"{each}-")), "raw")
        gate, _, setting = name.removeprefix(f"{scale}-").partition("-")
        assert variant.model["experts"] == {"kind": "conv", "count": 2, "filters": [128, 128], "hidden": [128]}
        assert variant.model["combine"] == {"kind": "weighted_sum"}
        assert variant.model["init"] == "keras"
        assert variant.scale == scale
        is_standardised = setting == "standardised"
        own = {"kind": "standardised", "gate": gates[gate]} if is_standardised else gates[gate]
        assert variant.model["gate"] == own
        kind, _, literal = setting.partition("-")
        names = [f"batch_{kind}", f"sample_{kind}"] if setting and not is_standardised else []
        names = [f"{one}_literal" for one in names] if literal else names
        assert [(loss.kind, loss.weight.plain) for loss in variant.training.losses] == list(
            zip(names, (0.1, 0.01), strict=False)
        )
    assert [figure.variants for figure in recipe.report.curves][:4] == [
        ["predesigned", f"conv{suffix}", f"dense{suffix}"] for suffix in ("", *(f"-{setting}" for setting in settings))
    ]


def test_gate_collapse_varies_one_thing_at_a_time():
    recipe = load_recipe("gate-collapse")
    variants = recipe.resolved_variants()
    for name, variant in variants.items():
        assert variant.scale == name.partition("-")[0]
        assert variant.model["init"] == ("torch" if "-torch" in name else "keras")
        assert variant.training.precision == ("bf16" if name.endswith("bf16") else "fp32")
    for scale in ("raw", "unit"):
        remedied, plain = variants[f"{scale}-standardised"].model, variants[scale].model
        assert remedied == {**plain, "gate": {"kind": "standardised", "gate": plain["gate"]}}
    assert (recipe.seeds, recipe.file.baseline) == (20, "unit")


def test_presets_of_cnn_sweeps_ask_one_question_each():
    counts = {"rates": 12, "schedules": 4, "gate-start": 4, "sizes": 9, "count": 5}
    for preset, count in counts.items():
        recipe = load_recipe("cnn-sweeps", preset=preset)
        assert len(recipe.variants) == count
        assert recipe.data.validation_rows


def test_specialise_has_the_control_of_equal_parameters():
    recipe = load_recipe("specialise")
    parameters = {size.variant: size.parameters for size in sizes(recipe)}
    assert parameters["distilled"] == 10 * parameters["single"]
    assert abs(parameters["single-wide"] / parameters["distilled"] - 1) < 1e-3
    # What one-active recommends, at the same size.
    recommended = load_recipe("one-active", preset="cpu")
    own, theirs = (each.resolved_variants()["specialise"].training for each in (recipe, recommended))
    assert own == theirs
    assert recipe.data == recommended.data


def test_expert_count_runs_from_one_to_twenty():
    recipe = load_recipe("expert-count")
    counts = [1, 2, 3, 4, 6, 8, 10, 12, 16, 20]
    variants = recipe.resolved_variants()
    assert recipe.report.expert_count.variants == [f"experts-{count}" for count in counts]
    assert recipe.report.expert_count.marks == ["predesigned"]
    for count in counts:
        assert variants[f"experts-{count}"].model["experts"] == {"kind": "linear", "count": count}
        assert variants[f"experts-{count}"].model["gate"] == {"kind": "mlp", "hidden": [64]}


def test_unlike_experts_has_one_of_each_under_every_gate():
    variants = load_recipe("unlike-experts").resolved_variants()
    assert {name: variant.model["gate"]["kind"] for name, variant in variants.items()} == {
        "predesigned": "domain", "uniform": "uniform", "linear": "linear", "dense": "mlp", "conv": "conv"
    }  # fmt: skip
    for variant in variants.values():
        assert [expert["kind"] for expert in variant.model["experts"]] == ["linear", "conv"]


def test_the_quickstart_needs_no_download():
    recipe = load_recipe("quickstart")
    assert [one["kind"] for one in recipe.data.sets] == ["digits", "textures"]
    # Experts of another kind replace the shared ones and their count with them: it must be given again.
    assert recipe.resolved_variants()["conv"].model["experts"]["count"] == 2


@pytest.mark.parametrize("name", shipped_recipes())
def test_lines_fit(name):
    assert max(map(len, find_recipe(name).read_text(encoding="utf-8").splitlines())) <= 120
    assert read_recipe(find_recipe(name), name)["name"] == name


def test_pairwise_cifar10_is_study_3():
    recipe = load_recipe("pairwise-cifar10")
    assert [stage.rows["classes"] for stage in recipe.stages] == [
        [0, 8], [1, 9], [2, 6], [3, 5], [4, 7], [0, 9], [1, 8], [2, 7], [3, 6], [4, 5]
    ]  # fmt: skip
    for stage in recipe.stages:
        assert stage.rows["outputs"] == "all"
        assert stage.training.watch.model_dump() == {
            "measure": "accuracy",
            "mode": None,
            "patience": 10,
            "plateau": {"patience": 2, "factor": 0.5, "least": 1e-6, "start": None},
            "above": None,
            "restart": False,
        }
    variants = recipe.resolved_variants()
    assert {name: variants[name].training.optimizer.lr.plain for name in variants} == {
        "gate-alone": 1e-3, "uniform": 1e-3, "standard": 1e-3, "sparse": 1e-4, "two-gates-sum": 5e-4,
        "two-gates-max": 5e-4, "vae-gate": 1e-3, "distribution": 1e-3,
    }  # fmt: skip
    for part in (*recipe.stages, *recipe.variants):
        assert (part.training.epochs, part.training.batch_size, part.training.views) == (100, 50, None)
        assert part.training.l2.model_dump() == {"weight": 1e-4, "layers": "convolutions"}
        assert [each.plain for each in part.training.augment] == [
            {"kind": "shift", "fraction": 0.1},
            {"kind": "flip"},
        ]
    watch = variants["standard"].training.watch
    assert (watch.above, watch.restart, watch.patience, watch.plateau.patience) == (0.8, True, None, 4)
    # The first plateau sets the rate of every variant to 5e-4.
    assert [watch.plateau.fallen(rate, 1) for rate in (1e-3, 5e-4, 1e-4)] == [5e-4] * 3
    # [conv, batch norm] ×2 of 32, 64 and 128, and a dense layer: the same network ten times, and as the gate.
    widths = [(3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    network = sum(9 * before * after + after + 2 * after for before, after in widths) + (2048 + 1) * 10
    assert {size.variant: size.parameters for size in sizes(recipe)} | {"vae-gate": 0} == {
        "gate-alone": network, "uniform": 10 * network, "standard": 11 * network, "sparse": 11 * network,
        "two-gates-sum": 11 * network + 2049 * 10, "two-gates-max": 11 * network + 2049 * 10, "vae-gate": 0,
        "distribution": 11 * network,
    }  # fmt: skip


def test_hierarchical_cifar10_is_study_4():
    recipe = load_recipe("hierarchical-cifar10")
    stages = {stage.name: stage for stage in recipe.stages}
    assert stages["first-gate"].rows["groups"] == [[0, 1, 8, 9], [2, 3, 4, 5, 6, 7]]
    assert {name: stages[name].rows["classes"] for name in ("base", "artificial", "natural")} == {
        "base": None, "artificial": [0, 1, 8, 9], "natural": [2, 3, 4, 5, 6, 7]
    }  # fmt: skip
    for part in (*recipe.stages, *recipe.variants):
        assert (part.training.watch.measure, part.training.watch.patience, part.training.batch_size) == ("loss", 2, 50)
    small = 9 * (3 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 192 + 4097 * 512 + 513 * 10
    large = 9 * (3 * 32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 2 * 128 * 128) + 576 + 2049 * 512 + 513 * 10
    first = small - 513 * 8
    second = 3073 * 512 + 513 * 20
    found = {size.variant: size.parameters for size in sizes(recipe)}
    assert (found["base"], found["tree"]) == (small, first + small + 2 * large + 2 * second)


def test_a_trained_tree_stores_the_base_of_both_branches_once():
    recipe = load_recipe("hierarchical-cifar10")
    facts = guess_facts(recipe.data.model_dump())
    tree = build_model(
        recipe.resolved_variants()["tree"].model, facts, StageNetworks(stage_specs(recipe.stages, facts))
    )
    assert tree.experts[0].experts[0] is tree.experts[1].experts[0]
    assert sum(tensor.numel() for tensor in stored_tensors(tree).values()) == sum(p.numel() for p in tree.parameters())
