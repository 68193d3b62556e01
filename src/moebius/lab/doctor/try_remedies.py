"""Trying remedies: each is fitted on a half of the rows, and measured on the other half."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from moebius.kit.errors import ArgumentError, MoebiusError, UnknownKindError
from moebius.kit.registry import did_you_mean, find, kinds
from moebius.lab.data.split import Split
from moebius.lab.doctor.costs import Costs, measure_costs
from moebius.lab.doctor.gain import paired_gain
from moebius.lab.doctor.trial import Trial
from moebius.lab.illnesses._illness import Finding
from moebius.lab.remedies._case import Case, Obstacle
from moebius.lab.training.evaluation import Evaluation, evaluate

if TYPE_CHECKING:
    from moebius.lab.doctor.diagnosis import Diagnosis, Subject

ROOM = "remedies"
# Rows that are needed on each side.
FEWEST = 40
# Receives a line before each remedy.
Listener = Callable[[str], None]


def try_remedies(
    diagnosis: "Diagnosis", remedies: Sequence[str] | None = None, seed: int = 0, progress: Listener | None = None
) -> list[Trial]:
    """Try what the findings of a diagnosis suggest.

    Arguments:
        diagnosis: of a model of ours, with labels.
        remedies: kinds of the room `remedies`; None for those that findings suggest. One that no finding suggests is
            tried for the first gate.
        seed: of the halves, and of everything random.
        progress: receives a line before each remedy.

    Raises:
        ArgumentError: the rows are too few, or the diagnosis is of another kind of model.
        UnknownKindError: no remedy is called so.
    """
    subject = diagnosis.subject
    if subject is None:
        rule = "needs a model of moebius, and its rows with their targets"
        raise ArgumentError("diagnosis", rule, None, "mb.diagnose(model, (x, y))")
    for kind in remedies or ():
        if kind not in kinds(ROOM):
            raise UnknownKindError(f"no remedy is called {kind!r}", did_you_mean(kind, kinds(ROOM)))
    if len(subject.split) < 2 * FEWEST:
        rule = f"needs {2 * FEWEST} rows at least: a half to fit, and a half to measure"
        raise ArgumentError("data", rule, len(subject.split), "mb.diagnose(model, more_rows)")
    planned = _plan(diagnosis, remedies)
    if not planned:
        return []
    tester = _Tester(subject, seed)
    trials = []
    for number, ((kind, gate, _), findings) in enumerate(planned.items(), 1):
        if progress is not None:
            progress(f"{number} of {len(planned)}: {kind.replace('_', ' ')} ({gate})")
        trials.append(tester.test(kind, gate, findings))
    return trials


def _plan(
    diagnosis: "Diagnosis", remedies: Sequence[str] | None
) -> dict[tuple[str, str, tuple[int, ...]], tuple[Finding, ...]]:
    """Remedy, gate and experts that it is about → the findings that suggest it."""
    planned: dict[tuple[str, str, tuple[int, ...]], tuple[Finding, ...]] = {}
    for finding in diagnosis.findings:
        for kind in finding.remedies:
            if remedies is None or kind in remedies:
                experts = finding.experts if kind == "prune_expert" else ()
                key = (kind, finding.gate, experts)
                planned[key] = (*planned.get(key, ()), finding)
    suggested = {kind for kind, _, _ in planned}
    if remedies is not None and diagnosis.examinations:
        first = diagnosis.examinations[0].gate
        planned |= {(kind, first, ()): () for kind in remedies if kind not in suggested}
    return planned


class _Tester:
    """Fits remedies on a half of the rows and measures them on the other.

    Arguments:
        subject: what was examined.
        seed: of the halves.
    """

    def __init__(self, subject: "Subject", seed: int):
        self.subject, self.seed = subject, seed
        device = next((parameter.device for parameter in subject.call.model.parameters()), torch.device("cpu"))
        fitted, measured, self.unexamined = halves(subject, seed)
        self.fitted, self.measured = fitted.to(device), measured.to(device)
        (self.evaluation,) = evaluate(subject.call, subject.task, self.measured)
        self.costs: dict[str, Costs] = {}

    def test(self, kind: str, gate: str, findings: tuple[Finding, ...]) -> Trial:
        """Try one remedy."""
        subject = self.subject
        finding = next(iter(findings), None)
        case = Case(subject.call, subject.task, gate, self.fitted, finding, self.seed)
        remedy: Any = find(ROOM, kind)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            try:
                treatment = remedy(case)
            except MoebiusError as error:
                treatment = Obstacle(error.message)
        if isinstance(treatment, Obstacle):
            return Trial(kind, gate, findings, reason=treatment.reason)
        call = case.call_of(treatment.model)
        (after,) = evaluate(call, subject.task.for_model(treatment.model), self.measured)
        if gate not in self.costs:
            self.costs[gate] = measure_costs(subject.call, gate, self.measured, self.evaluation)
        return Trial(
            kind,
            gate,
            findings,
            treatment.model,
            treatment.text,
            **self._gains(after, remedy.remedy.keeps_answers),
            before=self.costs[gate],
            after=measure_costs(call, gate, self.measured, after),
            rows=len(self.measured),
            unexamined=self.unexamined,
        )

    def _gains(self, after: Evaluation, keeps_answers: bool) -> Mapping[str, Any]:
        before = self.evaluation
        score = paired_gain(before.score_name, before.scores, after.scores)
        if keeps_answers and torch.equal(before.predictions, after.predictions):
            score = None  # no gain that an interval could be of
        return {"score": score, "loss": paired_gain("loss", before.losses, after.losses, less_is_better=True)}


def halves(subject: "Subject", seed: int) -> tuple[Split, Split, int]:
    """Rows to fit and rows to measure, and how many of the latter the examination has not seen.

    Rows that were not examined are measured first: whether an illness is found depends on the examined ones, so that
    on them the gain of an illness that barely shows is a little too favourable.
    """
    count = len(subject.split)
    order = np.random.default_rng([seed, 2]).permutation(count)
    is_examined = np.ones(count, dtype=bool)
    if subject.examined is not None:
        is_examined = np.zeros(count, dtype=bool)
        is_examined[subject.examined.cpu().numpy()] = True
    order = np.concatenate([order[is_examined[order]], order[~is_examined[order]]])
    middle = count - count // 2
    fitted, measured = (torch.from_numpy(part).to(subject.split.device) for part in (order[:middle], order[middle:]))
    unexamined = int((~is_examined[order[middle:]]).sum())
    return subject.split.take(fitted), subject.split.take(measured), unexamined
