"""Names of experts and gates on the page, and lists of classes."""

from collections.abc import Mapping, Sequence
from typing import Any

from moebius.lab.report.frames import Frame
from moebius.lab.report.gate_names import expert_index, expert_path, parent_gate
from moebius.lab.report.numbers import listing
from moebius.lab.report.queries import is_only_outer_gate
from moebius.lab.report.source import Study

FEW_CLASSES = 4


def expert_names(study: Study, variant: str, gate: str) -> list[str] | None:
    """Names of a gate's experts, by index; None where none of them has a name.

    The name of an expert is the stage that trained it, else the classes that it was trained on if these are fewer than
    four. The name of a nested mixture lists its leaf experts that are in no sibling.
    """
    # Expert of the gate → the leaf experts inside it, and whether the expert is that leaf itself.
    leaves: dict[int, list[tuple[Mapping[str, Any], bool]]] = {}
    for expert in experts_alone(study, variant):
        for path in expert["paths"]:
            index = expert_index(gate, path)
            if index is not None:
                leaves.setdefault(index, []).append((expert, path == expert_path(gate, index)))
    names_by_index = {index: _name_expert(index, leaves) for index in leaves}
    if not any(names_by_index.values()):
        return None
    names = [names_by_index.get(index) or f"expert {index}" for index in range(max(leaves) + 1)]
    return [f"{name} ({index})" if names.count(name) > 1 else name for index, name in enumerate(names)]


def title_of(study: Study, variant: str, gate: str) -> str:
    """The heading of a gate: its variant; where that has several, also the gate and its mixture's name, if any."""
    if is_only_outer_gate(study, variant, gate):
        return variant
    parent = parent_gate(gate, study.gates_of(variant))
    names = expert_names(study, variant, parent) if parent else None
    index = expert_index(parent, gate) if parent else None
    if names and index is not None and index < len(names):
        return f"{variant}, branch {names[index]} ({gate})"
    return f"{variant}, gate {gate}"


def experts_alone(study: Study, variant: str) -> Sequence[Mapping[str, Any]]:
    """The entries of `experts_alone` in the first run of a variant that has any: one for each leaf expert."""
    return next(
        (run["experts_alone"] for run in study.runs if run["variant"] == variant and run.get("experts_alone")), ()
    )


def leaf_name(expert: Mapping[str, Any]) -> str | None:
    """The stage that trained a leaf expert, or its classes if they are fewer than four; None without either."""
    classes = expert.get("classes") or ()
    return expert.get("name") or (", ".join(map(str, classes)) if 0 < len(classes) < FEW_CLASSES else None)


def expert_label(names: Sequence[str] | None, expert: int) -> str:
    """The name of an expert in running text, or `expert 3`."""
    return names[expert] if names and expert < len(names) else f"expert {expert}"


def with_labels(frame: Frame, names: Sequence[str] | None) -> tuple[Frame, list[str]]:
    """The frame with a column `named` of the experts' names or numbers, and those labels by expert."""
    last = int(frame["expert"].max())
    labels = [names[expert] if names and expert < len(names) else str(expert) for expert in range(last + 1)]
    return frame.assign(named=[labels[int(expert)] for expert in frame["expert"]]), labels


def class_list(classes: Sequence[str], among: Sequence[str]) -> str:
    """Classes for a cell of a table: all, up to four by name, all but up to four, or three and the number of others."""
    missing = [name for name in among if name not in classes]
    if not missing:
        return f"all {len(classes)}"
    if len(classes) <= FEW_CLASSES:
        return listing(list(classes))
    if len(missing) <= FEW_CLASSES:
        return f"all but {listing(missing)}"
    return f"{', '.join(classes[:3])} and {len(classes) - 3} more"


def _name_expert(index: int, leaves: Mapping[int, Sequence[tuple[Mapping[str, Any], bool]]]) -> str | None:
    inside = leaves[index]
    if any(is_leaf for _, is_leaf in inside):
        return leaf_name(inside[0][0])
    in_siblings = [leaf for sibling, pairs in leaves.items() if sibling != index for leaf, _ in pairs]
    names = [leaf_name(leaf) for leaf, _ in inside if not any(leaf is shared for shared in in_siblings)]
    return " + ".join(name for name in names if name) if names and all(names) and len(names) < FEW_CLASSES else None
