"""The illnesses of gates that show while a model trains."""

from collections.abc import Sequence

from torch import nn

from moebius.lab.diagnostics._rows import NO_GROUP, RoutedRows
from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._find import find_illnesses
from moebius.lab.illnesses._illness import Finding
from moebius.lab.report.gate_names import gate_name
from moebius.lab.training.evaluation import Evaluation
from moebius.lab.training.mixture_parts import gate_experts
from moebius.tasks._task import Task
from moebius.tasks.classification import Classification


class GateWatch:
    """Looks after every epoch for the illnesses that weights alone tell: collapsed and blind gates, ignored experts.

    Gates without parameters, which weigh experts alike or by the domain of a row, learn nothing and are left alone.

    Arguments:
        model: with the gates.
        task: what is learned.
    """

    def __init__(self, model: nn.Module, task: Task):
        self.has_classes = isinstance(task, Classification)
        modules = dict(model.named_modules(remove_duplicate=False))
        self.learned = {
            path if "gates." in path else gate_name(path)
            for path in gate_experts(model)
            if any(True for _ in (getattr(modules[path], "gate", None) or modules[path]).parameters())
        }

    def findings(self, evaluation: Evaluation) -> list[Finding]:
        """What shows in the gates of an evaluation.

        Arguments:
            evaluation: on rows that the model is not trained on, where there are any.
        """
        findings: list[Finding] = []
        for gate in self.learned & evaluation.gates.keys():
            weights = evaluation.gates[gate]
            reached = ~weights.isnan().any(1)
            groups = {"domain": evaluation.domains[reached]}
            if self.has_classes:
                groups["class"] = evaluation.labels[reached].clamp(min=NO_GROUP)
            rows = RoutedRows(weights[reached].float(), groups=groups)
            # A mean over the tokens of a row is even, whatever the gate does with each of them.
            decides = gate not in evaluation.averaged
            k = int(rows.kept.sum(1).max()) if len(rows) and decides else 0
            examination = Examination(gate, RoutedRows(rows.weights, k=k, groups=groups), decides=decides)
            findings += find_illnesses(examination, watched=True)
        return sorted(findings, key=lambda finding: (finding.gate, finding.code))


def codes_by_gate(findings: Sequence[Finding]) -> dict[str, str]:
    """The codes of findings by gate, as an epoch's metrics have them: {"gate": "MB002 MB003"}."""
    gates = dict.fromkeys(finding.gate for finding in findings)
    return {gate: " ".join(finding.code for finding in findings if finding.gate == gate) for gate in gates}
