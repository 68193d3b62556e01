"""The checks are generic: losses and routers are made up for the purpose, and leave with the test."""

import pytest
import torch

import moebius as mb
from moebius.kit import registry
from moebius.kit.errors import RecipeError
from moebius.lab.recipe.load import load_recipe
from moebius.lab.recipe.loss_needs import check_loss_needs

LOSSES = [{"kind": "spread_of_heat", "weight": 0.1}]
EXPERTS = {"kind": "linear", "count": 2}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that reads `heat`, a router that gives it, and a gate that gives keys of its own."""
    monkeypatch.setattr(registry, "_plugins", {})

    @mb.register("losses")
    @mb.needs(aux=("heat",), expert_losses=True)
    def spread_of_heat(routing, expert_losses, power: float = 1.0):
        """The variance of the heat."""
        return routing.aux["heat"].var() ** power

    @mb.register("routers")
    class Warm(mb.routers.Soft):
        """Gives heat."""

        aux_names = ("heat",)

    @mb.register("gates")
    class Generous(torch.nn.Module):
        """Gives keys of its own."""

        gives_aux = True


def lines(losses, **model) -> list[str]:
    spec = {"gate": {"kind": "linear"}, "experts": EXPERTS, **model}
    return [problem.line() for problem in check_loss_needs(losses, spec)]


def test_a_router_that_gives_the_key_passes_also_inside_another():
    assert lines(LOSSES, router={"kind": "warm"}) == []
    assert lines(LOSSES, router={"kind": "heads", "heads": 2, "router": {"kind": "warm"}}) == []
    assert lines([{"kind": "batch_entropy"}]) == []


def test_a_router_that_does_not_is_refused_with_one_that_does():
    rule = "losses[0].kind: needs 'heat', which neither the gate nor the router soft gives, got 'spread_of_heat'"
    assert lines(LOSSES, router={"kind": "soft"}) == [f"{rule}; take router warm"]
    assert lines(LOSSES) == [f"{rule}; take router warm"]
    nested = {"kind": "mixture", "gate": {"kind": "linear"}, "experts": EXPERTS, "count": 2}
    assert lines(LOSSES, router={"kind": "warm"}, experts=nested) == [f"{rule}; take router warm"]


@pytest.mark.parametrize(
    "model",
    [
        {"gate": {"kind": "generous"}},
        {"experts": {"kind": "linear"}},
        {"router": {"kind": "no_such"}},
        {"experts": {"kind": "linear", "count": "two"}},
    ],
)
def test_what_the_recipe_does_not_tell_is_left_to_the_run(model):
    assert lines(LOSSES, **model) == []


def test_expert_losses_are_no_keyword_of_a_recipe_and_the_problem_stands_where_it_was_written(written):
    loss = "epochs: 2, losses: [{kind: spread_of_heat, power: 2.0}]"
    assert load_recipe(written(("epochs: 2", loss), ("model:", "model:\n  router: {kind: warm}")))
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(("epochs: 2", loss)))
    (problem,) = caught.value.problems
    assert problem.startswith("training.losses[0].kind: needs 'heat', which neither")
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(("{gate: {kind: linear}}", "{training: {losses: [{kind: spread_of_heat}]}}")))
    (problem,) = caught.value.problems
    assert problem.startswith("variants.linear.training.losses[0].kind: needs 'heat'")
    change = ("epochs: 2", "epochs: 2, losses: [{kind: spread_of_heat, expert_losses: 3}]")
    with pytest.raises(RecipeError, match="spread_of_heat has no such keyword, got 3; one of power, weight"):
        load_recipe(written(change))


def test_a_stage_that_trains_a_mixture_is_checked(written):
    stage = (
        "{experts: {kind: stage, stage: base}}\nstages: {base: {model: {gate: {kind: linear}, experts: {kind: linear, "
    )
    stage += "count: 2}}, training: {losses: [{kind: spread_of_heat}]}}}"
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(("{gate: {kind: linear}}", stage)))
    (problem,) = caught.value.problems
    assert problem.startswith("stages.base.training.losses[0].kind: needs 'heat'")
