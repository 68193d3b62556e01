import pytest

from moebius.kit.errors import StudyError
from moebius.lab.study.cohorts import describe_cohorts, form_cohorts
from moebius.lab.study.run_spec import RunSpec

LINEAR = {
    "gate": {"kind": "linear"},
    "router": {"kind": "soft"},
    "experts": {"kind": "linear", "count": 2},
    "combine": {"kind": "log_mixture"},
}
NOISY = {**LINEAR, "router": {"kind": "gumbel"}}
LARGE = {**LINEAR, "gate": {"kind": "mlp", "hidden": [64]}, "experts": {"kind": "mlp", "count": 8, "hidden": [8000]}}
TRAINING = {"epochs": 2, "batch_size": 40, "optimizer": {"kind": "adam", "lr": 1e-3}, "precision": "fp32"}


def runs(seeds, variants):
    """Variant → model, or model and changes of the training."""
    return [
        RunSpec(name, seed, model, {**TRAINING, **changes}, "")
        for seed in range(seeds)
        for name, (model, changes) in variants.items()
    ]


@pytest.fixture
def dealt(planned, tmp_path):
    """Deals runs; the names of each stack, and the reasons."""
    data = planned(tmp_path).data

    def made(every, workers=1, stacking="auto", device="cpu"):
        stacks, reasons = form_cohorts(every, data, device, workers, stacking)
        return [[run.name for run in stack] for stack in stacks], reasons

    return made


def test_runs_that_differ_in_seed_and_losses_alone_share_a_stack(dealt):
    losses = {"losses": [{"kind": "batch_entropy", "weight": 0.1}]}
    variants = {
        "plain": (LINEAR, {}),
        "entropy": (LINEAR, losses),
        "late": (LINEAR, {"cross_entropy": 0.5}),
        "fast": (LINEAR, {"optimizer": {"kind": "adam", "lr": 1e-2}}),
        "compared": (LINEAR, {"losses": [{"kind": "best_expert"}]}),
    }
    stacks, reasons = dealt(runs(2, variants))
    one = [f"{name}/seed-{seed}" for seed in (0, 1) for name in ("plain", "entropy", "late")]
    assert sorted(map(len, stacks)) == [2, 2, 6]
    assert one in stacks
    assert ["fast/seed-0", "fast/seed-1"] in stacks
    assert ["compared/seed-0", "compared/seed-1"] in stacks
    assert reasons == {}


def test_reasons(dealt):
    stages = {"first": {}}
    every = [
        *runs(2, {"noisy": (NOISY, {}), "large": (LARGE, {}), "bf16": (LINEAR, {"precision": "bf16"})}),
        *runs(1, {"lonely": (LINEAR, {"epochs": 7})}),
        *[RunSpec("staged", seed, LINEAR, TRAINING, "", stages) for seed in (0, 1)],
    ]
    stacks, reasons = dealt(every)
    assert stacks == []
    assert set(reasons) == {"noisy", "large", "bf16", "lonely", "staged"}
    assert reasons["noisy"] == "has a router that draws random numbers"
    assert "multiply-adds in a step" in reasons["large"]
    assert reasons["lonely"] == "has no run beside it with a model like its own"
    assert reasons["staged"] == "uses stages"


def test_never_and_always(dealt):
    every = runs(2, {"linear": (LINEAR, {}), "large": (LARGE, {})})
    assert dealt(every, stacking="never") == ([], dict.fromkeys(("linear", "large"), "is not to be stacked"))
    assert len(dealt(every, stacking="always")[0]) == 2
    with pytest.raises(StudyError, match="--stack always: noisy has a router that draws random numbers") as caught:
        dealt(runs(2, {"noisy": (NOISY, {})}), stacking="always")
    assert caught.value.fix == "--stack auto"
    # One run has nobody to be stacked with.
    assert dealt(runs(1, {"noisy": (NOISY, {})}), stacking="always")[0] == []


@pytest.mark.parametrize(
    ("seeds", "variants", "workers", "sizes"),
    [
        (5, 1, 1, [5]),
        (5, 1, 2, [3, 2]),
        (5, 4, 2, [5, 5, 5, 5]),
        (2, 1, 2, []),  # two processes have one each
        (5, 1, 5, []),
        (20, 1, 1, [10, 10]),  # more than ten bring nothing
        (4, 1, 3, [2, 2]),  # a third would not be done earlier
    ],
)
def test_all_workers_have_work(seeds, variants, workers, sizes, dealt):
    # Variants that differ in their learning rates do not share a stack.
    models = {f"v{n}": (LINEAR, {"optimizer": {"kind": "adam", "lr": 10.0**-n}}) for n in range(1, variants + 1)}
    stacks, _ = dealt(runs(seeds, models), workers)
    assert sorted(map(len, stacks), reverse=True) == sizes


def test_a_gpu_takes_all_at_once(dealt):
    assert list(map(len, dealt(runs(20, {"linear": (LINEAR, {})}), 1, device="cuda")[0])) == [20]


def test_the_longest_begin_first(dealt):
    variants = {"short": (LINEAR, {}), "long": (LINEAR, {"epochs": 3})}
    assert [stack[0] for stack in dealt(runs(3, variants))[0]] == ["long/seed-0", "short/seed-0"]


def test_in_a_few_words():
    every = runs(3, {"a": (LINEAR, {}), "b": (LINEAR, {})})
    stacks = [tuple(every[:3]), tuple(every[3:5])]
    assert describe_cohorts(stacks, every, {}) == "2 stacks of 2 or 3, 1 alone"
    assert describe_cohorts(stacks[:1], every[:3], {}) == "1 stack of 3"
    assert describe_cohorts([], every, {"a": "has nothing to train"}) == "no stacks: a has nothing to train"
    assert describe_cohorts([], every, {}) == "no stacks: there is a process for each run"
