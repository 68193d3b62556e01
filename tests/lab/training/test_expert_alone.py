import pytest
import torch
from torch import nn

import moebius as mb
from moebius.core.output_cache import OutputCache
from moebius.experts.adapter import Adapter
from moebius.lab.data.split import Split
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.expert_alone import ExpertAlone, experts_alone, leaf_experts, oracle
from moebius.tasks import Classification


class Says(nn.Module):
    """The same logits for every row, and a count of the rows that asked."""

    def __init__(self, *logits):
        super().__init__()
        self.logits, self.rows = nn.Parameter(torch.tensor(logits)), 0

    def forward(self, x):
        self.rows += len(x)
        return self.logits.expand(len(x), -1)


class Repeats(nn.Module):
    """Logits are the row itself."""

    def forward(self, x):
        return x


@pytest.fixture
def split():
    return Split(torch.eye(3)[[0, 1, 2, 0]] * 2, torch.tensor([0, 1, 2, 1]), torch.zeros(4, dtype=torch.int64))


def gate(experts):
    return nn.Linear(3, experts)


def test_worked_by_hand(split):
    moe = mb.Mixture(gate(2), [Says(0.0, 1.0, 0.0), Repeats()])
    first, second = experts_alone(ModelCall(moe), Classification(), split, (3,))
    assert first.paths == ("experts.0",)
    assert second.paths == ("experts.1",)
    assert first.module is moe.experts[0]
    assert first.predictions.tolist() == [1, 1, 1, 1]
    assert second.predictions.tolist() == [0, 1, 2, 0]
    e = torch.e
    torch.testing.assert_close(first.confidence, torch.full((4,), e / (e + 2)))
    torch.testing.assert_close(second.confidence, torch.full((4,), e**2 / (e**2 + 2)))
    # Right: rows 1 and 3 by the first, rows 0, 1 and 2 by the second.
    assert oracle((first,)) == 0.5
    assert oracle((second,)) == 0.75
    assert oracle((first, second)) == 1.0
    assert oracle(()) is None


def test_own_rows_are_those_of_classes_that_it_knows(split):
    limited = Adapter(Says(0.0, 9.0), classes=[2, 0], total=3, frozen=True)
    alone, unrestricted = experts_alone(
        ModelCall(mb.Mixture(gate(2), [limited, Repeats()])), Classification(), split, (3,)
    )
    assert alone.classes == (2, 0)
    assert alone.predictions.tolist() == [0, 0, 0, 0]  # its second output is class 0
    assert alone.knows_class(split.labels).tolist() == [True, False, True, False]
    assert unrestricted.classes is None
    assert unrestricted.knows_class(split.labels).all()


@pytest.mark.parametrize("activation", ["none", "softmax", "sigmoid", "log_softmax"])
def test_confidence_is_a_probability_once(activation, split):
    expert = Adapter(Says(0.0, 2.0, 0.0), activation=activation)
    (alone,) = experts_alone(ModelCall(mb.Mixture(gate(1), [expert])), Classification(), split, (3,))
    logits = torch.tensor([0.0, 2.0, 0.0])
    expected = logits.sigmoid()[1] if activation == "sigmoid" else logits.softmax(0)[1]
    torch.testing.assert_close(alone.confidence, expected.expand(4))
    assert alone.predictions.tolist() == [1] * 4


def test_leaves_are_the_experts_of_all_mixtures_with_all_their_places():
    base, first, second = Repeats(), Says(0.0, 0.0, 0.0), Says(0.0, 1.0, 0.0)
    branches = [mb.Mixture(gate(2), [base, expert]) for expert in (first, second)]
    model = mb.Mixture(gate(2), [branches[0], nn.Sequential(branches[1])])
    results = leaf_experts(model)
    assert results[base] == ("experts.0.experts.0", "experts.1.0.experts.0")
    assert results[first] == ("experts.0.experts.1",)
    assert results[second] == ("experts.1.0.experts.1",)
    assert branches[0] not in results


def test_what_is_inside_an_adapter_is_the_adapter_s_own():
    inside = mb.Mixture(gate(2), [Repeats(), Repeats()])
    whole = Adapter(inside, frozen=True)
    assert list(leaf_experts(mb.Mixture(gate(1), [whole]))) == [whole]


@pytest.mark.parametrize("classes", [2, 4])
def test_experts_that_give_no_value_per_class_say_nothing(classes, split):
    assert (
        experts_alone(ModelCall(mb.Mixture(gate(2), [Repeats(), Repeats()])), Classification(), split, (classes,)) == ()
    )


def test_modes_come_back_and_dropout_is_off(split):
    noisy = nn.Sequential(Repeats(), nn.Dropout(0.9))
    moe = mb.Mixture(gate(2), [noisy, Adapter(Repeats(), frozen=True)])
    moe.train()
    moe.gate.eval()
    modes = [module.training for module in moe.modules()]
    first, second = experts_alone(ModelCall(moe), Classification(), split, (3,))
    assert [module.training for module in moe.modules()] == modes
    assert torch.equal(first.confidence, second.confidence)


def test_frozen_experts_are_looked_up(split):
    frozen, free = Adapter(Says(0.0, 1.0, 0.0), frozen=True), Says(1.0, 0.0, 0.0)
    moe = mb.Mixture(gate(2), [frozen, free])
    table = torch.eye(3)[[2, 2, 0, 1]]
    first, _ = experts_alone(ModelCall(moe), Classification(), split, (3,), cache=OutputCache({frozen: table}))
    assert first.predictions.tolist() == [2, 2, 0, 1]
    assert (frozen.network.rows, free.rows) == (0, 4)


def test_the_oracle_is_no_less_than_any_expert_and_no_more_than_all_together():
    torch.manual_seed(0)
    results = tuple(
        ExpertAlone(nn.Identity(), (), None, torch.zeros(50).long(), torch.ones(50), torch.rand(50) < 0.4)
        for _ in range(3)
    )
    each = [oracle((alone,)) for alone in results]
    assert max(each) <= oracle(results) <= sum(each)
