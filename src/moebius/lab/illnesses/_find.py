"""The illnesses of a gate: every test of the room is made, and what another finding explains is left out."""

from collections.abc import Callable, Iterator
from typing import Any

from moebius.kit.registry import find, kinds
from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Finding, Illness

ROOM = "illnesses"


def find_illnesses(gate: Examination, watched: bool = False) -> list[Finding]:
    """What a gate suffers from, sorted by code.

    Arguments:
        gate: as it was examined.
        watched: True for the tests alone that a training makes after every epoch.

    Example:
        >>> import torch
        >>> from moebius.lab.diagnostics._rows import RoutedRows
        >>> one_sided = RoutedRows(torch.tensor([[1.0, 0.0]]).expand(500, 2), k=1)
        >>> find_illnesses(Examination("gate", one_sided))
        [MB001 collapsed gate at gate: 1 of 2 experts has 100 % of the use; expert 1 has 0 % of an even share]
    """
    if gate.rows.experts < 2 or not len(gate.rows):
        return []
    findings, explained = [], set()
    for kind, test, facts in known_illnesses():
        symptom = test(gate) if facts.watched or not watched else None
        if symptom is not None:
            named = {"code": facts.code, "kind": kind, "gate": gate.gate}
            effect = {"effect_name": facts.effect_name, "remedies": facts.remedies}
            findings.append(Finding(**vars(symptom), **named, **effect))
            explained.update(facts.explains)
    return sorted((each for each in findings if each.kind not in explained), key=lambda finding: finding.code)


def known_illnesses() -> Iterator[tuple[str, Callable[[Examination], Any], Illness]]:
    """Name, function and facts of each illness that is known."""
    for kind in kinds(ROOM):
        test = find(ROOM, kind)
        yield kind.replace("_", " "), test, test.illness  # type: ignore[attr-defined]
