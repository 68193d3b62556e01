"""Sorts of variants: mixtures with a learned gate, mixtures of equal weights, single networks, the gate alone."""

import math
from collections.abc import Mapping

from moebius.lab.report.settings import settings_of
from moebius.lab.report.source import Study

# By how much the entropy of equal weights, which are rounded, may be below the logarithm of their number.
ROUNDING = 1e-5


def is_mixture(study: Study, variant: str) -> bool:
    """Whether some gate of the variant has several experts."""
    return any(
        gate["experts"] > 1
        for run in study.runs
        if run["variant"] == variant
        for gate in (run.get("gates") or {}).values()
    )


def is_single(study: Study, variant: str) -> bool:
    """Whether the variant is one network: it has no gate with several experts."""
    return not is_mixture(study, variant) and all("gates" in run for run in study.runs if run["variant"] == variant)


def has_uniform_weights(study: Study, variant: str) -> bool:
    """Whether a gate of several experts weighs them equally for every test row."""
    frame = study.table("entropy", variant=variant, split="test")
    if frame.empty:
        return False
    frame = frame[frame["experts"] > 1]
    return bool((frame["row"] > frame["experts"].map(math.log) - ROUNDING).any())


def has_learned_gate(study: Study, variant: str) -> bool:
    """Whether a gate of several experts has parameters, or the runs do not tell, and its weights are not all equal."""
    gates = [gate for run in study.runs if run["variant"] == variant for gate in (run.get("gates") or {}).values()]
    is_learned = any(gate["experts"] > 1 and gate.get("learned", True) for gate in gates)
    return is_learned and not has_uniform_weights(study, variant)


def is_gate_alone(study: Study, variant: str) -> bool:
    """Whether the variant is one network that is made like the gate of the others, and unlike their experts."""
    model = study.recipe.get("model") or {}
    gate, experts, alone = (
        _bare(part) for part in (model.get("gate"), model.get("experts"), settings_of(study, variant).get("experts"))
    )
    return gate is not None and gate == alone != experts and gate.get("kind") != "uniform"


def _bare(part: object) -> dict[str, object] | None:
    """What a network is made of, without its number and its output's activation."""
    if not isinstance(part, Mapping):
        return None
    return {key: value for key, value in part.items() if value is not None and key not in ("count", "activation")}
