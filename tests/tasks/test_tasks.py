import pytest
import torch
from torch import nn
from torch.nn import functional as F

import moebius as mb
from moebius.experts.adapter import Adapter
from moebius.tasks import Classification
from moebius.testing import cases


@pytest.mark.parametrize(("name", "check"), cases("tasks"))
def test_every_task(name, check):
    check()


def mixture(combine=None):
    return mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 3), nn.Linear(4, 3)], combine=combine)


@pytest.mark.parametrize(
    ("model", "outputs", "to_logits"),
    [
        (mixture(), "logits", lambda x: x),
        (nn.Sequential(mixture(mb.LogMixture())), "logits", lambda x: x),
        (mixture(mb.LogMixture()), "log-probabilities", lambda x: x.log_softmax(-1)),
        (Adapter(nn.Linear(4, 3), activation="softmax"), "probabilities", lambda x: x.softmax(-1)),
        (Adapter(nn.Linear(4, 3)), "logits", lambda x: x),
    ],
)
def test_the_model_says_what_its_outputs_are_and_every_scale_gives_the_same_figures(model, outputs, to_logits):
    task = Classification().for_model(model)
    assert task.outputs == outputs
    logits, labels = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    torch.testing.assert_close(
        task.row_losses(to_logits(logits), labels), F.cross_entropy(logits, labels, reduction="none")
    )
    torch.testing.assert_close(task.probabilities(to_logits(logits)), logits.softmax(-1))
    columns = task.predict(to_logits(logits))
    assert torch.equal(columns["predictions"], logits.argmax(-1))
    torch.testing.assert_close(columns["probabilities"], logits.softmax(-1).max(-1).values)


def test_a_task_of_a_model_is_another_object():
    task = Classification()
    assert task.for_model(mixture(mb.LogMixture())).for_model(mixture()).outputs == task.outputs == "logits"


@pytest.mark.parametrize("name", ["row_losses", "row_scores", "expert_losses"])
def test_the_contract_names_what_a_task_lacks(name):
    with pytest.raises(TypeError, match=f"Task is a task without a method {name}"):
        getattr(mb.Task(), name)(torch.zeros(1, 2), torch.zeros(1))
