from dataclasses import replace

import pytest
import torch

from moebius.kit.errors import TrainingError
from moebius.lab.data.batches import ordered_batches
from moebius.lab.model.build import build_model
from moebius.lab.training.nonfinite_error import nonfinite_error

MLP = {"experts": {"kind": "mlp", "count": 2, "hidden": [8]}}
HUGE = {"kind": "sgd", "lr": 1e30}
NAN = {"cross_entropy": torch.tensor(torch.nan), "batch_entropy": torch.tensor(0.0)}


@pytest.fixture
def batch(small_data):
    return next(ordered_batches(small_data().train, 8))


@pytest.fixture
def model(small_data):
    return build_model(
        {"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 3}, "combine": {"kind": "log_mixture"}},
        small_data().facts,
    )


def test_names_the_parameter(model, batch):
    model.experts[1].linear.weight.data[0, 0] = torch.nan
    message = nonfinite_error(model, batch, NAN, 2, 7).message
    assert message == (
        "epoch 2, step 7: cross_entropy is not a finite number; not finite: parameter experts.1.linear.weight"
    )


@pytest.mark.parametrize(
    ("part", "name"), [(lambda model: model.experts[2], "expert experts.2"), (lambda model: model.gate, "gate gate")]
)
def test_names_the_output(part, name, model, batch):
    part(model).linear.weight.data.fill_(3e38)
    execution = model.execution
    message = nonfinite_error(model, batch, NAN, 1, 1).message
    assert message.endswith(f"not finite: output of {name}")
    assert model.execution is execution
    assert not any(module._forward_hooks for module in model.modules())


def test_a_gate_that_says_minus_infinity_on_purpose_is_not_blamed(small_data, batch):
    model = build_model(
        {"gate": {"kind": "domain"}, "router": {"kind": "argmax"}, "experts": {"kind": "linear", "count": 2}},
        small_data().facts,
    )
    model.experts[0].linear.weight.data.fill_(3e38)
    assert nonfinite_error(model, batch, NAN, 1, 1).message.endswith("not finite: output of expert experts.0")


def test_names_every_bad_term_and_the_total_where_none_is(model, batch):
    both = {"cross_entropy": torch.tensor(torch.inf), "batch_entropy": torch.tensor(torch.nan)}
    assert "cross_entropy and batch_entropy is not" in nonfinite_error(model, batch, both, 1, 1).message
    assert "total is not" in nonfinite_error(model, batch, {"cross_entropy": torch.tensor(1.0)}, 1, 1).message


def test_a_run_that_diverges_stops_and_keeps_its_last_checkpoint(small_data, settings, build, tmp_path, alone):
    data = small_data()
    events = []
    loop = alone(build(data, **MLP), data, settings(optimizer=HUGE), 0, tmp_path, listen=events.append)
    with pytest.raises(TrainingError) as caught:
        loop.train()
    steps = [event.step for event in events if event.kind == "step"]
    failed = steps[-1] + 1
    assert caught.value.message.startswith(f"epoch 1, step {failed}: cross_entropy is not a finite number; not finite:")
    assert "expert" in caught.value.message
    assert caught.value.fix is not None
    assert "training.optimizer.lr" in caught.value.fix
    checkpoint = (tmp_path / "state" / "checkpoint.safetensors").read_bytes()
    with pytest.raises(TrainingError, match=f"step {failed}"):
        alone(build(data, **MLP), data, settings(optimizer=HUGE), 0, tmp_path).train()
    assert (tmp_path / "state" / "checkpoint.safetensors").read_bytes() == checkpoint
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize("losses", [[], [{"kind": "z_loss", "weight": 1e-3}]])
def test_figures_that_are_read_late_give_the_same_error(losses, small_data, settings, build, tmp_path, alone):
    data = small_data()
    # The rates explode in the second of four epochs; each has three steps.
    rates = {"kind": "sgd", "lr": {"kind": "step", "start": 1e-3, "factor": 1e38, "every": 1}}
    errors, steps = [], []
    for seconds in (1e-9, 1e9):
        chosen = settings(epochs=4, optimizer=rates, losses=losses, checkpoint_seconds=seconds)
        loop = alone(build(data, **MLP), data, chosen, 0, tmp_path / str(seconds))
        count = loop.part_schedule.apply
        loop.part_schedule.apply = lambda *moment, count=count: steps.append(moment[0]) or count(*moment)
        with pytest.raises(TrainingError) as caught:
            loop.train()
        errors.append(caught.value)
    assert errors[0].message.startswith("epoch 2, step 5: cross_entropy")
    assert "not finite: " in errors[0].message
    assert [error.message for error in errors] == [errors[0].message] * 2
    # Read after each step, the fifth is repeated; read at an epoch's end, the second epoch is, up to there.
    assert len(steps) == (5 + 1) + (6 + 2)


def test_a_last_update_that_breaks_the_model_is_found_by_evaluation(small_data, settings, build, tmp_path, alone):
    data = small_data()
    # One step in all: its own loss is that of the untrained model.
    once = settings(epochs=1, batch_size=120, optimizer={"kind": "sgd", "lr": 1e38})
    with pytest.raises(TrainingError, match=r"epoch 1, step 1: test cross_entropy is not a finite number"):
        alone(build(data, **MLP), data, once, 0, tmp_path).train()
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_term_without_weight_must_be_finite_too(small_data, settings, build, tmp_path, alone):
    data = small_data()
    chosen = settings(losses=[{"kind": "sample_entropy", "weight": 0.0}])
    create = build(data, router={"kind": "soft"}, combine={"kind": "weighted_sum"})

    def broken():
        model = create()
        # Every weight the mixture takes stays finite; only what the loss reads is spoilt.
        model.router.register_forward_hook(
            lambda module, inputs, routing: type(routing)(
                routing.scores, routing.probs * torch.nan, routing.weights, routing.log_weights
            )
        )
        return model

    with pytest.raises(TrainingError, match="step 1: sample_entropy is not a finite number"):
        alone(broken, data, chosen, 0, tmp_path).train()


def test_names_a_router_and_a_combine_whose_parts_are_finite(small_data, batch):
    spec = {"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}, "combine": {"kind": "weighted_sum"}}
    model = build_model(spec, small_data().facts)
    for expert, sign in zip(model.experts, (1, -1), strict=True):
        expert.linear.weight.data.zero_()
        expert.linear.bias.data.fill_(sign * 3e38)
    model.combine = lambda y, routing: y * 2
    message = nonfinite_error(model, batch, NAN, 1, 1).message
    assert message.endswith("; not finite: output of the model (Mixture)")
    model.router.register_forward_hook(lambda router, inputs, routing: replace(routing, weights=routing.weights / 0))
    message = nonfinite_error(model, batch, NAN, 1, 1).message
    assert message.endswith("; not finite: output of router (Soft)")


def test_names_a_layer_of_a_model_without_experts(batch):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(4), torch.nn.Linear(4, 2))
    model(batch.x)
    model[1].weight.data.fill_(3e38)
    message = nonfinite_error(model, batch, NAN, 1, 1).message
    assert message.endswith("; not finite: output of 1 (Linear)")
    assert not any(module._forward_hooks for module in model.modules())


def test_names_the_largest_output_where_all_are_finite(model, batch):
    model.experts[1].linear.bias.data.fill_(1e30)
    message = nonfinite_error(model, batch, NAN, 1, 1).message
    assert "; all outputs are finite, and the largest is 1e+30, of experts (Stack)" in message
