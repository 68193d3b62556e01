"""The illnesses of gates that show while a model trains."""

from typing import Any

from torch import nn

from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._find import find_illnesses
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

    def findings(self, evaluation: Evaluation) -> list[dict[str, Any]]:
        """What shows in the gates of an evaluation, as an epoch's metrics have it.

        Arguments:
            evaluation: on rows that the model is not trained on, where there are any.
        """
        found = []
        for gate in self.learned & evaluation.gates.keys():
            weights = evaluation.gates[gate]
            reached = ~weights.isnan().any(1)
            groups = {"domain": evaluation.domains[reached]}
            if self.has_classes:
                groups["class"] = evaluation.labels[reached]
            rows = RoutedRows(weights[reached].float(), groups=groups)
            # A mean over the tokens of a row is even, whatever the gate does with each of them.
            decides = gate not in evaluation.averaged
            k = int(rows.kept.sum(1).max()) if len(rows) and decides else 0
            examination = Examination(gate, RoutedRows(rows.weights, k=k, groups=groups), decides=decides)
            found += find_illnesses(examination, watched=True)
        return [
            {
                "code": finding.code,
                "kind": finding.kind,
                "gate": finding.gate,
                "experts": list(finding.experts),
                "evidence": finding.evidence,
                "remedy": finding.remedy,
            }
            for finding in sorted(found, key=lambda finding: (finding.gate, finding.code))
        ]


def describe_finding(finding: dict[str, Any]) -> str:
    """A finding of an epoch as a line.

    Example:
        >>> found = {"code": "MB1", "kind": "collapsed gate", "gate": "gate", "evidence": "all alike", "remedy": "rest"}
        >>> describe_finding(found)
        'MB1 collapsed gate (gate): all alike. Try: rest'
    """
    return f"{finding['code']} {finding['kind']} ({finding['gate']}): {finding['evidence']}. Try: {finding['remedy']}"
