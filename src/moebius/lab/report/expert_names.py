"""What experts are called, and how classes are listed."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from moebius.lab.report.frames import Frame
from moebius.lab.report.gate_rows import ROOT
from moebius.lab.report.numbers import listing
from moebius.lab.report.source import Study

FEW_CLASSES = 4


def expert_names(study: Study, variant: str, gate: str = ROOT) -> list[str] | None:
    """Names of a gate's experts, by index; None where none of them was given one.

    An expert is called by the stage that it comes from, else by the classes that it knows where these are few. A
    mixture among the experts is called by the leaf experts that it shares with no other.
    """
    lead = "" if gate == ROOT else f"{gate}."
    places: dict[int, list[tuple[Mapping[str, Any], bool]]] = {}
    for expert in experts_alone(study, variant):
        for path in expert["paths"]:
            match = re.match(rf"{re.escape(lead)}experts\.(\d+)(\.|$)", path)
            if match:
                places.setdefault(int(match[1]), []).append((expert, match[2] == ""))
    found = {place: _name(place, places) for place in places}
    if not any(found.values()):
        return None
    names = [found.get(place) or f"expert {place}" for place in range(max(places) + 1)]
    return [f"{name} ({place})" if names.count(name) > 1 else name for place, name in enumerate(names)]


def title_of(study: Study, variant: str, gate: str) -> str:
    """What to call a gate of a variant: a nested one by the name of its mixture, if it has one, and its path."""
    if gate == ROOT:
        return variant
    match = re.fullmatch(r"(?:(.*)\.)?experts\.(\d+)(?:\.(?!experts\.)[^.]+)*", gate)
    names = expert_names(study, variant, match[1] or ROOT) if match else None
    if match and names and int(match[2]) < len(names):
        return f"{variant}, branch {names[int(match[2])]} ({gate})"
    return f"{variant}, gate {gate}"


def experts_alone(study: Study, variant: str) -> Sequence[Mapping[str, Any]]:
    """The leaf experts of a variant's first run that has measured them by themselves."""
    return next(
        (run["experts_alone"] for run in study.runs if run["variant"] == variant and run.get("experts_alone")), ()
    )


def leaf_name(expert: Mapping[str, Any]) -> str | None:
    """What a leaf expert is called, if anything."""
    classes = expert.get("classes") or ()
    return expert.get("name") or (", ".join(map(str, classes)) if 0 < len(classes) < FEW_CLASSES else None)


def expert_label(names: Sequence[str] | None, expert: int) -> str:
    """An expert in running text."""
    return names[expert] if names and expert < len(names) else f"expert {expert}"


def with_labels(frame: Frame, names: Sequence[str] | None) -> tuple[Frame, list[str]]:
    """The frame with a column `named`, and its values in the experts' order: names or numbers."""
    last = int(frame["expert"].max())
    order = [names[expert] if names and expert < len(names) else str(expert) for expert in range(last + 1)]
    return frame.assign(named=[order[int(expert)] for expert in frame["expert"]]), order


def class_list(classes: Sequence[str], among: Sequence[str]) -> str:
    """Classes in a table's cell: all, the few, all but a few, or the first few and how many more."""
    rest = [name for name in among if name not in classes]
    if not rest:
        return f"all {len(classes)}"
    if len(classes) <= FEW_CLASSES:
        return listing(list(classes))
    if len(rest) <= FEW_CLASSES:
        return f"all but {listing(rest)}"
    return f"{', '.join(classes[:3])} and {len(classes) - 3} more"


def _name(place: int, places: Mapping[int, Sequence[tuple[Mapping[str, Any], bool]]]) -> str | None:
    here = places[place]
    if any(itself for _, itself in here):
        return leaf_name(here[0][0])
    elsewhere = [expert for other, leaves in places.items() if other != place for expert, _ in leaves]
    own = [leaf_name(expert) for expert, _ in here if not any(expert is other for other in elsewhere)]
    return " + ".join(name for name in own if name) if own and all(own) and len(own) < FEW_CLASSES else None
