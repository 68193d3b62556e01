import logging

import torch
from torch import nn

import moebius as mb
from moebius.lab.training.evaluation import Evaluation
from moebius.lab.training.gate_watch import GateWatch, codes_by_gate
from moebius.tasks import Classification


def evaluation(weights, averaged=()):
    count = len(weights)
    labels = torch.arange(count) % 2
    zeros = torch.zeros(count)
    return Evaluation(labels, zeros.long(), labels, None, zeros, zeros, {"gate": weights}, averaged=frozenset(averaged))


def gate_watch():
    return GateWatch(mb.Mixture(nn.Linear(2, 3), [nn.Linear(2, 2) for _ in range(3)]), Classification())


def test_names_what_weights_alone_tell():
    watch, one_sided = gate_watch(), torch.tensor([[1.0, 0, 0]]).expand(400, 3)
    (collapsed,) = watch.findings(evaluation(one_sided))
    assert (collapsed.kind, collapsed.experts) == ("collapsed gate", (1, 2))
    (blind,) = watch.findings(evaluation(torch.full((400, 3), 1 / 3)))
    assert blind.kind == "blind gate"
    halves = torch.eye(3)[torch.randint(0, 2, (400,), generator=torch.Generator().manual_seed(0))]
    (ignored,) = watch.findings(evaluation(halves))
    assert (ignored.kind, ignored.experts) == ("ignored expert", (2,))
    assert codes_by_gate([collapsed, blind]) == {"gate": "MB001 MB003"}
    assert watch.findings(evaluation(torch.eye(3)[torch.arange(400) % 3])) == []


def test_a_mean_over_tokens_is_not_called_blind():
    assert gate_watch().findings(evaluation(torch.full((400, 3), 1 / 3), averaged=["gate"])) == []


def test_gates_without_parameters_are_left_alone():
    moe = mb.Mixture(mb.gates.Uniform(3), [nn.Linear(2, 2) for _ in range(3)])
    assert GateWatch(moe, Classification()).findings(evaluation(torch.full((400, 3), 1 / 3))) == []


def test_a_training_warns_at_the_first_epoch_and_once(caplog):
    torch.manual_seed(0)
    x = torch.randn(600, 4)
    gate = nn.Linear(4, 3)
    with torch.no_grad():
        gate.bias.copy_(torch.tensor([40.0, 0.0, 0.0]))
    moe = mb.Mixture(gate, [nn.Linear(4, 2) for _ in range(3)], combine=mb.LogMixture())
    with caplog.at_level(logging.WARNING, "moebius"):
        fitted = mb.fit(moe, (x, (x[:, 0] > 0).long()), epochs=3, lr=0.01, progress=False)
    start, record = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert start.getMessage().startswith("saturated gate (gate) before the first step")
    assert record.getMessage().startswith("epoch 1: MB001 collapsed gate (gate): 1 of 3 experts has 100 % of the use")
    assert "Try: standardise the data, or the gate's input (mb.gates.Standardised)" in record.getMessage()
    assert [entry.get("findings") for entry in fitted.metrics] == [{"gate": "MB001"}] * 3
