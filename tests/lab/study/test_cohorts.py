from pathlib import Path

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
        RunSpec(name, seed, Path(name), model, {**TRAINING, **changes}, "")
        for seed in range(seeds)
        for name, (model, changes) in variants.items()
    ]


@pytest.fixture
def cohorts_of(planned, tmp_path):
    """Deals runs; the names of each cohort, and the reasons."""
    data = planned(tmp_path).data

    def form_named_cohorts(specs, workers=1, mode="auto", device="cpu"):
        cohorts, reasons = form_cohorts(specs, data, device, workers, mode)
        return [[run.name for run in cohort] for cohort in cohorts], reasons

    return form_named_cohorts


def test_runs_that_differ_in_seed_and_losses_alone_share_a_cohort(cohorts_of):
    losses = {"losses": [{"kind": "batch_entropy", "weight": 0.1}]}
    variants = {
        "plain": (LINEAR, {}),
        "entropy": (LINEAR, losses),
        "late": (LINEAR, {"cross_entropy": 0.5}),
        "fast": (LINEAR, {"optimizer": {"kind": "adam", "lr": 1e-2}}),
        "compared": (LINEAR, {"losses": [{"kind": "best_expert"}]}),
    }
    cohorts, reasons = cohorts_of(runs(2, variants))
    expected = [f"{name}/seed-{seed}" for seed in (0, 1) for name in ("plain", "entropy", "late")]
    assert sorted(map(len, cohorts)) == [2, 2, 6]
    assert expected in cohorts
    assert ["fast/seed-0", "fast/seed-1"] in cohorts
    assert ["compared/seed-0", "compared/seed-1"] in cohorts
    assert reasons == {}


def test_reasons(cohorts_of):
    stages = {"first": {}}
    specs = [
        *runs(2, {"noisy": (NOISY, {}), "large": (LARGE, {}), "bf16": (LINEAR, {"precision": "bf16"})}),
        *runs(1, {"lonely": (LINEAR, {"epochs": 7})}),
        *[RunSpec("staged", seed, Path("staged"), LINEAR, TRAINING, "", stages) for seed in (0, 1)],
    ]
    cohorts, reasons = cohorts_of(specs)
    assert cohorts == []
    assert set(reasons) == {"noisy", "large", "bf16", "lonely", "staged"}
    assert reasons["noisy"] == "draws random numbers while it trains"
    assert "multiply-adds in a step" in reasons["large"]
    assert reasons["lonely"] == "is the only run with its model"
    assert reasons["staged"] == "uses stages"


def test_never_and_always(cohorts_of):
    specs = runs(2, {"linear": (LINEAR, {}), "large": (LARGE, {})})
    assert cohorts_of(specs, mode="never") == (
        [],
        dict.fromkeys(("linear", "large"), "trains alone, since cohorts are switched off"),
    )
    assert len(cohorts_of(specs, mode="always")[0]) == 2
    with pytest.raises(StudyError, match="--cohorts always: noisy draws random numbers while it trains") as error:
        cohorts_of(runs(2, {"noisy": (NOISY, {})}), mode="always")
    assert error.value.fix == "--cohorts auto"
    # One run cannot form a cohort.
    assert cohorts_of(runs(1, {"noisy": (NOISY, {})}), mode="always")[0] == []


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
def test_all_workers_have_work(seeds, variants, workers, sizes, cohorts_of):
    # Variants that differ in their learning rates do not share a cohort.
    models = {f"v{n}": (LINEAR, {"optimizer": {"kind": "adam", "lr": 10.0**-n}}) for n in range(1, variants + 1)}
    cohorts, _ = cohorts_of(runs(seeds, models), workers)
    assert sorted(map(len, cohorts), reverse=True) == sizes


def test_a_gpu_takes_all_at_once(cohorts_of):
    assert list(map(len, cohorts_of(runs(20, {"linear": (LINEAR, {})}), 1, device="cuda")[0])) == [20]


def test_the_longest_begin_first(cohorts_of):
    variants = {"short": (LINEAR, {}), "long": (LINEAR, {"epochs": 3})}
    assert [cohort[0] for cohort in cohorts_of(runs(3, variants))[0]] == ["long/seed-0", "short/seed-0"]


def test_in_a_few_words():
    specs = runs(3, {"a": (LINEAR, {}), "b": (LINEAR, {})})
    cohorts = [tuple(specs[:3]), tuple(specs[3:5])]
    assert describe_cohorts(cohorts, specs, {}) == "2 cohorts of 2 or 3 runs, 1 alone"
    assert describe_cohorts(cohorts[:1], specs[:3], {}) == "1 cohort of 3 runs"
    assert describe_cohorts([], specs, {"a": "has nothing to train"}) == "no cohorts: a has nothing to train"
    assert describe_cohorts([], specs, {}) == "no cohorts: there is a process for each run"
