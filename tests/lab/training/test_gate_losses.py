"""Gate losses as mappings, functions and pairs."""

import functools

import pytest
import torch
from pydantic import ValidationError

from moebius.core.loss_needs import needs
from moebius.kit.errors import ArgumentError
from moebius.lab.checks.wording import problems_of
from moebius.lab.training.gate_losses import GateLoss
from moebius.lab.training.objective import Objective
from moebius.lab.training.settings import Settings
from moebius.losses import batch_entropy, best_fit, z_loss
from moebius.routers.soft import Soft
from moebius.schedules import Linear
from moebius.tasks import Classification


def gate_losses(specs):
    return Settings(losses=specs).losses


def problem_of(specs):
    """The one problem of gate losses."""
    with pytest.raises(ValidationError) as error:
        gate_losses(specs)
    (problem,) = problems_of(error.value, Settings)
    return problem


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
        ("batch_entropy", "batch_entropy", 1.0, batch_entropy(ROUTING)),
        (batch_entropy, "batch_entropy", 1.0, batch_entropy(ROUTING)),
        ((spread, 0.25), "spread", 0.25, spread(ROUTING)),
        ((functools.partial(spread, power=1), 2), "spread", 2.0, torch.tensor(1.0)),
        (Shifted(), "Shifted", 1.0, spread(ROUTING) + 1),
        ((lambda routing: routing.probs.sum(), 0.1), "<lambda>", 0.1, torch.tensor(2.0)),
    ],
)
def test_a_mapping_a_function_and_a_pair(spec, name, weight, value):
    loss = GateLoss.model_validate(spec)
    assert (loss.name, loss.weight(0.0)) == (name, weight)
    torch.testing.assert_close(loss.at(0.0)(ROUTING), value)


@pytest.mark.parametrize("weight", [{"kind": "linear", "start": 0.0, "end": 1.0, "epochs": 4}, Linear(0.0, 1.0, 4)])
def test_a_weight_follows_a_schedule(weight):
    assert GateLoss.model_validate((spread, weight)).weight(1.0) == 0.25


def test_an_option_follows_a_schedule():
    loss = GateLoss.model_validate({"kind": spread, "power": {"kind": "linear", "start": 1.0, "end": 3.0, "epochs": 2}})
    torch.testing.assert_close(loss.at(1.0)(ROUTING), spread(ROUTING, 2))


def objective(losses):
    return Objective(Classification(), [Settings(losses=losses)])


def test_what_a_loss_declares_decides_whether_it_receives_expert_losses():
    @needs(expert_losses=True)
    def declared(routing, **more):
        return more["expert_losses"].mean()

    def by_name(routing, expert_losses):
        return expert_losses.mean()

    losses = gate_losses([declared, by_name, spread, functools.partial(best_fit, floor=0.5)])
    comparing = objective(losses).comparing
    assert [loss.name for loss in losses if id(loss) in comparing] == ["declared", "by_name", "best_fit"]


@pytest.mark.parametrize("specs", [[z_loss, (z_loss, 0.1)], [{"kind": "z_loss"}, z_loss], [lambda r: 0, lambda r: 1]])
def test_two_losses_of_one_name_are_refused_with_a_fix(specs):
    problem = problem_of(specs)
    assert problem.path == ("losses", 1)
    assert "names a gate loss twice" in problem.rule
    assert "another function name" in (problem.fix or "")


def test_a_name_that_training_reports_itself_is_refused():
    def l2(routing):
        return routing.probs.sum()

    problem = problem_of([l2])
    assert "reports a term 'l2' of its own" in problem.rule
    assert problem.fix == "def gate_l2(routing): …"


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (0.1, "losses[0].kind: no such kind, got 0.1; one of batch_entropy"),
        ("z_los", "losses[0].kind: no such kind, got 'z_los'; did you mean z_loss?"),
        ({"weight": 0.1}, "losses[0].kind: is missing"),
        ({"kind": "z_los"}, "losses[0].kind: no such kind, got 'z_los'; did you mean z_loss?"),
        ({"kind": spread, "powr": 2}, "losses[0].powr: spread has no such keyword, got 2; did you mean power?"),
        ((spread, "much"), "losses[0].weight: needs a number or a schedule, got 'much'; such as {kind: cosine"),
    ],
)
def test_what_is_no_loss_is_refused(spec, line):
    assert problem_of([spec]).line().startswith(line)


@pytest.mark.parametrize("value", [torch.zeros(2), 0.5])
def test_a_loss_that_gives_no_single_number_is_refused(value):
    def rows(routing):
        return value

    with pytest.raises(ArgumentError, match=r"losses\.rows: must return one number") as error:
        objective(gate_losses([rows]))(torch.zeros(2, 2), torch.tensor([0, 1]), [{"": [ROUTING]}], 0.0)
    assert error.value.fix == "return values.mean()"
