"""Prune experts: those that are ignored, and all but one of those that say the same."""

from collections.abc import Collection

from torch import Tensor, nn

from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.illnesses._intervals import list_experts
from moebius.lab.illnesses._use import FLOOR, use_shares
from moebius.lab.illnesses.redundant_experts import redundant_pairs
from moebius.lab.remedies._case import Case, Obstacle, Treatment, remedy
from moebius.lab.remedies._fitting import best_of
from moebius.lab.remedies._gate_fits import gate_fits
from moebius.lab.remedies._routes import record_routes
from moebius.storage.editing import drop_expert


@remedy("work")
def prune_expert(case: Case) -> Treatment | Obstacle:
    """Experts that a finding calls ignored are dropped; of redundant ones the most used stays.

    The gate's scores for the others stay as they are, or are trained on the rows, whichever has less loss on rows that
    were not fitted.

    Reference: ours.
    """
    place = case.place(case.call.model)
    if not place.is_single:
        return Obstacle("its layer has several gates over the same experts, and all of them would change")
    superfluous = _superfluous(case)
    if not superfluous:
        return Obstacle("no expert is ignored or says what another one says")

    def pruned() -> nn.Module:
        model = case.copy()
        for expert in sorted(superfluous, reverse=True):
            model = drop_expert(model, expert, at=place.path)
        return model.eval()

    fits = gate_fits(case, pruned) if place.count - len(superfluous) > 1 else Obstacle("")
    refits = {} if isinstance(fits, Obstacle) else {text: fits[text] for text in fits if "where it is" in text}
    dropped = f"{list_experts(superfluous)} of {place.count} {'was' if len(superfluous) == 1 else 'were'} dropped"
    candidates = {"": pruned, **refits}
    return best_of(case, {f"{dropped}; {text}" if text else dropped: make for text, make in candidates.items()})


def _superfluous(case: Case) -> list[int]:
    finding = case.finding
    if finding is not None and "ignored" in finding.kind and finding.experts:
        return sorted(finding.experts)
    routes = record_routes(case)
    shares = use_shares(RoutedRows(routes.weights))
    pairs = redundant_pairs(routes.outputs) if len(routes.outputs) else {}
    dropped = set(_repeated(pairs, shares))
    if finding is None:
        dropped |= set((shares * len(shares) < FLOOR).nonzero().flatten().tolist())
    return sorted(dropped - {int(shares.argmax())})


def _repeated(pairs: Collection[tuple[int, int]], shares: Tensor) -> list[int]:
    """The experts that say what a more used one says."""
    kept: list[int] = []
    repeated = []
    for expert in shares.argsort(descending=True, stable=True).tolist():
        if any((min(expert, twin), max(expert, twin)) in pairs for twin in kept):
            repeated.append(expert)
        else:
            kept.append(expert)
    return repeated
