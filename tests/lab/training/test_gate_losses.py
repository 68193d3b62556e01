"""Gate losses as mappings, functions and pairs."""

import functools

import pytest
import torch

from moebius.core.loss_needs import needs
from moebius.kit.errors import ArgumentError, UnknownKindError
from moebius.lab.training.gate_losses import as_gate_loss, as_gate_losses
from moebius.lab.training.objective import Objective
from moebius.lab.training.settings import Settings
from moebius.losses import batch_entropy, best_fit, z_loss
from moebius.routers.soft import Soft
from moebius.schedules import Linear
from moebius.tasks import Classification

ROUTING = Soft()(torch.tensor([[1.0, 0.0], [0.5, 2.0]]))


def spread(routing, power=2):
    return routing.probs.pow(power).sum(1).mean()


class Shifted:
    """A loss that is an object."""

    def __call__(self, routing):
        return spread(routing) + 1


@pytest.mark.parametrize(
    ("spec", "name", "weight", "value"),
    [
        ({"kind": "batch_entropy", "weight": 0.3}, "batch_entropy", 0.3, batch_entropy(ROUTING)),
        ({"kind": batch_entropy}, "batch_entropy", 1.0, batch_entropy(ROUTING)),
        ({"kind": spread, "weight": 0.5, "power": 3}, "spread", 0.5, spread(ROUTING, 3)),
        (batch_entropy, "batch_entropy", 1.0, batch_entropy(ROUTING)),
        ((spread, 0.25), "spread", 0.25, spread(ROUTING)),
        ((functools.partial(spread, power=1), 2), "spread", 2.0, torch.tensor(1.0)),
        (Shifted(), "Shifted", 1.0, spread(ROUTING) + 1),
        ((lambda routing: routing.probs.sum(), 0.1), "<lambda>", 0.1, torch.tensor(2.0)),
    ],
)
def test_a_mapping_a_function_and_a_pair(spec, name, weight, value):
    loss = as_gate_loss(spec)
    assert (loss.name, loss.weight(0.0)) == (name, weight)
    torch.testing.assert_close(loss.at(0.0)(ROUTING), value)


@pytest.mark.parametrize("weight", [{"kind": "linear", "start": 0.0, "end": 1.0, "epochs": 4}, Linear(0.0, 1.0, 4)])
def test_a_weight_follows_a_schedule(weight):
    assert as_gate_loss((spread, weight)).weight(1.0) == 0.25


def test_an_option_follows_a_schedule():
    loss = as_gate_loss({"kind": spread, "power": {"kind": "linear", "start": 1.0, "end": 3.0, "epochs": 2}})
    torch.testing.assert_close(loss.at(1.0)(ROUTING), spread(ROUTING, 2))


def objective(losses):
    return Objective(Classification(), [Settings(1, 1, "adam", losses=losses)])


def test_what_a_loss_declares_decides_whether_it_receives_expert_losses():
    @needs(expert_losses=True)
    def declared(routing, **more):
        return more["expert_losses"].mean()

    def by_name(routing, expert_losses):
        return expert_losses.mean()

    losses = as_gate_losses([declared, by_name, spread, functools.partial(best_fit, floor=0.5)])
    comparing = objective(losses).comparing
    assert [loss.name for loss in losses if id(loss) in comparing] == ["declared", "by_name", "best_fit"]


@pytest.mark.parametrize("specs", [[z_loss, (z_loss, 0.1)], [{"kind": "z_loss"}, z_loss], [lambda r: 0, lambda r: 1]])
def test_two_losses_of_one_name_are_refused_with_a_fix(specs):
    with pytest.raises(ArgumentError, match="names a gate loss twice") as error:
        as_gate_losses(specs)
    assert "another function name" in (error.value.fix or "")


def test_a_name_that_training_reports_itself_is_refused():
    def l2(routing):
        return routing.probs.sum()

    with pytest.raises(ArgumentError, match="reports a term 'l2' of its own") as error:
        as_gate_losses([l2])
    assert error.value.fix == "def gate_l2(routing): …"


@pytest.mark.parametrize("spec", [0.1, "z_loss", (0.1, z_loss), None, {"weight": 0.1}])
def test_what_is_no_loss_is_refused_with_an_example(spec):
    with pytest.raises(ArgumentError) as error:
        as_gate_losses([spec])
    assert (error.value.fix or "").startswith("losses=[")


def test_an_unknown_kind_is_refused():
    with pytest.raises(UnknownKindError, match="did you mean z_loss"):
        as_gate_loss({"kind": "z_los"})


@pytest.mark.parametrize("value", [torch.zeros(2), 0.5])
def test_a_loss_that_gives_no_single_number_is_refused(value):
    def rows(routing):
        return value

    with pytest.raises(ArgumentError, match=r"losses\.rows: must return one number") as error:
        objective(as_gate_losses([rows]))(torch.zeros(2, 2), torch.tensor([0, 1]), [{"": [ROUTING]}], 0.0)
    assert error.value.fix == "return values.mean()"
