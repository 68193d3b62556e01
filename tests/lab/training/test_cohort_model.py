import pytest
import torch

from moebius.core.recording import record
from moebius.lab.model.build import build_model
from moebius.lab.training.cohort_model import CohortModel

FACTS = {"features": 64, "channels": 1, "size": 8, "classes": 20, "domains": 2}
LINEAR = {
    "gate": {"kind": "linear"},
    "experts": {"kind": "linear", "count": 2},
    "combine": {"kind": "log_mixture"},
}
CONV = {"kind": "conv", "filters": [4, 4], "hidden": [8]}
MODELS = {
    "single": {**LINEAR, "gate": {"kind": "uniform"}, "experts": {"kind": "linear"}},
    "predesigned": {**LINEAR, "gate": {"kind": "domain"}, "router": {"kind": "argmax"}},
    "linear": LINEAR,
    "hidden": {**LINEAR, "gate": {"kind": "mlp", "hidden": [16]}},
    "conv": {"gate": CONV, "experts": {**CONV, "count": 2}},
    "unlike": {"gate": {"kind": "cosine"}, "experts": [{"kind": "mlp", "hidden": [8]}, CONV]},
    "top_k": {"gate": {"kind": "linear"}, "router": {"kind": "top_k", "k": 2}, "experts": {"kind": "mlp", "count": 4}},
    "expert_choice": {**LINEAR, "router": {"kind": "expert_choice"}},
    "stack": {"gate": {"kind": "linear"}, "router": {"kind": "top_k", "k": 1}, "experts": {"kind": "mlp", "count": 3}},
    "nested": {"gate": {"kind": "linear"}, "experts": [{"kind": "linear"}, {"kind": "mixture", **LINEAR}]},
}
RUNS, ROWS = 3, 7


def build_models(name, dtype=torch.float64):
    torch.manual_seed(0)
    return [build_model(MODELS[name], FACTS).to(dtype) for _ in range(RUNS)]


def inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(RUNS, ROWS, 1, 8, 8, generator=generator).to(dtype)
    return x, torch.randint(0, 2, (RUNS, ROWS), generator=generator)


def total(output, log):
    """A number that every parameter has a part in: of the output, and of what the gates say."""
    return output.square().mean() + sum(routing.probs.square().sum() for calls in log.values() for routing in calls)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_gradients_are_those_of_each_model_alone(name, dtype, tolerance):
    models, (x, domains) = build_models(name, dtype), inputs(dtype)
    outputs, gradients = [], []
    for model, rows, domain in zip(models, x, domains, strict=True):
        with record(model) as log:
            output = model(rows, {"domain": domain})
        total(output, log).backward()
        outputs.append(output.detach())
        gradients.append([parameter.grad for parameter in model.parameters()])
    cohort = CohortModel(models)
    with record(cohort.model) as log:
        output = cohort.model(x.flatten(0, 1), {"domain": domains.flatten()})
    run_logs = [cohort.run_log(log, run) for run in range(RUNS)]
    sum(total(part, log_of_run) for part, log_of_run in zip(output.chunk(RUNS), run_logs, strict=True)).backward()
    torch.testing.assert_close(output, torch.cat(outputs), rtol=0, atol=tolerance)
    for leaf, *expected in zip(cohort.leaves.values(), *gradients, strict=True):
        expected = torch.stack(expected)
        within = tolerance * max(1.0, expected.abs().max().item())
        torch.testing.assert_close(leaf.grad, expected, rtol=0, atol=within)


@pytest.mark.parametrize("name", ["linear", "predesigned", "top_k", "expert_choice", "stack", "nested"])
def test_the_log_of_a_run_is_what_its_model_logs_alone(name):
    models, (x, domains) = build_models(name), inputs()
    alone = []
    for model, rows, domain in zip(models, x, domains, strict=True):
        with record(model) as log:
            model(rows, {"domain": domain})
        alone.append(log)
    cohort = CohortModel(models)
    with record(cohort.model) as log:
        cohort.model(x.flatten(0, 1), {"domain": domains.flatten()})
    for run, expected in enumerate(alone):
        log_of_run = cohort.run_log(log, run)
        assert log_of_run.keys() == expected.keys()
        for path, (routing,) in log_of_run.items():
            (routing_alone,) = expected[path]
            # Losses test whether these two are the same tensor.
            assert (routing.probs is routing.weights) == (routing_alone.probs is routing_alone.weights)
            for part in ("scores", "probs", "weights", "log_weights"):
                torch.testing.assert_close(getattr(routing, part), getattr(routing_alone, part))
            if routing_alone.selection is not None:
                assert torch.equal(routing.selection.row_A, routing_alone.selection.row_A)
                assert torch.equal(routing.selection.expert_A, routing_alone.selection.expert_A)


def test_an_update_of_the_stacked_parameters_updates_the_models():
    models = build_models("linear")
    before = [model.gate.linear.weight.clone() for model in models]
    cohort = CohortModel(models)
    leaf = cohort.leaves[models[0].gate.linear.weight]
    assert leaf.shape == (RUNS, 2, 64)
    assert all(torch.equal(view, weight) for view, weight in zip(leaf, before, strict=True))
    with torch.no_grad():
        leaf[1] += 1
    assert torch.equal(models[1].gate.linear.weight, before[1] + 1)
    assert torch.equal(models[2].gate.linear.weight, before[2])


def test_a_run_that_is_not_finite_leaves_the_others_as_they_are():
    models, (x, _) = build_models("linear"), inputs()
    fine = CohortModel(models).model(x.flatten(0, 1)).chunk(RUNS)
    with torch.no_grad():
        models[1].gate.linear.weight.fill_(torch.nan)
    cohort = CohortModel(models)
    output = cohort.model(x.flatten(0, 1)).chunk(RUNS)
    assert output[1].isnan().all()
    assert torch.equal(output[0], fine[0])
    assert torch.equal(output[2], fine[2])
    torch.stack([output[run].square().mean() for run in (0, 2)]).sum().backward()
    for leaf in cohort.leaves.values():
        assert leaf.grad is not None
        assert leaf.grad[[0, 2]].isfinite().all()
