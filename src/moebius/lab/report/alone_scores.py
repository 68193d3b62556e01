"""The score of each expert of a gate by itself, on each class or data set."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from moebius.lab.report.gate_names import expert_path
from moebius.lab.report.source import Study


def alone_scores(
    study: Study, variant: str, gate: str, seed: int, by: str, groups: Sequence[str]
) -> Float[np.ndarray, "G E"] | None:
    """The test scores of the experts of a gate; NaN where an expert is a mixture, or the group has no rows.

    Arguments:
        study, variant, gate, seed: which experts.
        by: "class" or "domain".
        groups: names of the groups.

    Returns:
        None where no expert has such scores.
    """
    names = list(study.classes if by == "class" else (study.about.get("data") or {}).get("domains") or ())
    if by == "domain" and len(names) < 2:
        names = list(study.domains)
    run = next((each for each in study.runs if (each["variant"], each["seed"]) == (variant, seed)), {})
    count = ((run.get("gates") or {}).get(gate) or {}).get("experts", 0)
    scores = np.full((len(groups), count), np.nan)
    for expert in run.get("experts_alone") or ():
        values = expert.get(f"by_{by}") or ()
        for number in range(count):
            if expert_path(gate, number) in expert["paths"]:
                for place, group in enumerate(groups):
                    position = names.index(group) if group in names else len(values)
                    if position < len(values) and values[position] is not None:
                        scores[place, number] = values[position]
    return scores if np.isfinite(scores).any() else None
