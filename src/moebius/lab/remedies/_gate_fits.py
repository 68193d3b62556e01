"""The ways to train one gate anew."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from moebius.core.routing import Router
from moebius.lab.remedies._case import Case, Obstacle
from moebius.lab.remedies._fitting import fit_part
from moebius.lab.remedies._fresh import fresh
from moebius.routers.cut import Cut
from moebius.routers.hash import Hash
from moebius.routers.soft import Soft

# With more experts than this none is trained with all of them running.
MOST_EXPERTS = 128


def gate_fits(
    case: Case, model: Callable[[], nn.Module] | None = None, losses: Sequence[Any] = ()
) -> dict[str, Callable[[], nn.Module]] | Obstacle:
    """What is done → a function that does it to a copy; or why nothing can be.

    Arguments:
        case: the gate.
        model: makes the copy; that of the case unless given.
        losses: gate losses that are added.
    """
    make = model or case.copy
    place = case.place(case.call.model)
    if isinstance(place.router, Hash):
        return Obstacle("its router spreads rows by a hash and reads no gate")
    if not any(parameter.is_floating_point() for parameter in place.gate.parameters()):
        return Obstacle("the gate has nothing to train")
    if not any(parameter.requires_grad for parameter in place.gate.parameters()):
        return Obstacle("the gate is frozen: gate.requires_grad_() lets it train")
    forms: dict[str, Router | None] = {"": None} if place.router.trains_gate else {}
    soft = soft_form(place.router, place.count)
    if soft is not None:
        forms[", with all experts running while it trains"] = soft
    if not forms:
        return Obstacle(f"no gradient reaches the gate through {type(place.router).__name__}")
    starts = ["from where it is"]
    if fresh(place.gate, case.seed) is not None:
        starts.append("from a fresh start")
    return {
        f"the gate was trained {start}{text}": functools.partial(_fitted, case, make, "fresh" in start, form, losses)
        for text, form in forms.items()
        for start in starts
    }


def soft_form(router: Any, experts: int) -> Router | None:
    """A router with the same scores that runs all experts and trains the gate; None where it is none, or is the same.

    Example:
        >>> from moebius.routers import Argmax, TopK
        >>> soft_form(Argmax(), 4), soft_form(TopK(2, normalisation="sigmoid"), 4).normalisation
        (Soft(), 'sigmoid')
    """
    if isinstance(router, Cut):
        inner = soft_form(router.router, experts)
        return router.router if inner is None and router.router.trains_gate else inner
    selects = router.max_active(experts) < experts or not router.trains_gate
    if not selects or router.needs_keys or router.gate_outputs(experts) != experts or experts > MOST_EXPERTS:
        return None
    return Soft(normalisation=getattr(router, "normalisation", "softmax"))


def _fitted(
    case: Case, make: Callable[[], nn.Module], is_fresh: bool, form: Router | None, losses: Sequence[Any]
) -> nn.Module:
    copied = make()
    place = case.place(copied)
    if is_fresh:
        place.put(gate=fresh(place.gate, case.seed))
    router = place.router
    if form is not None:
        place.put(router=form)
    fit_part(case, copied, [*place.gate.parameters(), *place.router.parameters()], losses)
    place.put(router=router)
    return copied
