"""Checks that the parts of a model give what its gate losses read beside a routing's weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from moebius.core.loss_needs import loss_needs
from moebius.kit.registry import find, kinds
from moebius.lab.checks.problems import Problem, inner_mapping
from moebius.lab.recipe.model import DEFAULTS


def check_loss_needs(losses: Any, model: Mapping[str, Any]) -> list[Problem]:
    """The gate losses that need a key of `Routing.aux` which a mixture of the model cannot give.

    A gate that gives keys of its own does not name them, and a mixture of one expert may be an exception to a loss:
    such mixtures, and those inside stages, are left to the run.

    Arguments:
        losses: the `losses` of a resolved `training`; paths of problems begin there.
        model: the resolved spec of a mixture.
    """
    problems = []
    mixtures = _mixtures(model)
    for place, loss in enumerate(losses if isinstance(losses, list) else ()):
        kind = loss.get("kind") if isinstance(loss, Mapping) else None
        if kind not in kinds("losses"):
            continue
        needed = loss_needs(find("losses", kind)).aux
        for mixture in mixtures:
            names = _aux_names(mixture)
            missing = [name for name in needed if names is not None and name not in names]
            if missing:
                router = {**DEFAULTS, **mixture}["router"]["kind"]
                rule = f"needs {' and '.join(map(repr, missing))}, which neither the gate nor the router {router} gives"
                problems.append(Problem(("losses", place, "kind"), rule, kind, _suggest_part(missing)))
                break
    return problems


def _mixtures(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The mixture of a spec and those among its experts, at all depths."""
    nested = [expert for expert in _experts(model) if expert.get("kind") == "mixture"]
    return [model, *(mixture for expert in nested for mixture in _mixtures(expert))]


def _experts(model: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    experts = model.get("experts")
    experts = experts if isinstance(experts, list) else [experts]
    return [expert for expert in experts if isinstance(expert, Mapping)]


def _aux_names(mixture: Mapping[str, Any]) -> set[str] | None:
    """The keys of `Routing.aux` that a mixture gives; None where its spec does not say."""
    counts = [expert.get("count", 1) for expert in _experts(mixture)]
    gate = inner_mapping(mixture, "gate").get("kind")
    if counts in ([], [1]) or not all(isinstance(count, int) for count in counts):
        return None
    if gate != "stage" and (gate not in kinds("gates") or getattr(find("gates", gate), "gives_aux", False)):
        return None
    names: set[str] = set()
    router = mixture.get("router", DEFAULTS["router"])
    while router is not None:
        if not isinstance(router, Mapping) or router.get("kind") not in kinds("routers"):
            return None
        declared = getattr(find("routers", router["kind"]), "aux_names", ())
        if not isinstance(declared, tuple):
            return None
        names |= set(declared)
        router = router.get("router")
    return names


def _suggest_part(missing: Sequence[str]) -> str:
    routers = [kind for kind in kinds("routers") if set(missing) <= set(_declared(kind))]
    if routers:
        return f"take router {' or '.join(routers)}"
    gates = [kind for kind in kinds("gates") if getattr(find("gates", kind), "gives_aux", False)]
    return f"take gate {' or '.join(gates)}, or take the loss out"


def _declared(kind: str) -> tuple[str, ...]:
    declared = getattr(find("routers", kind), "aux_names", ())
    return declared if isinstance(declared, tuple) else ()
