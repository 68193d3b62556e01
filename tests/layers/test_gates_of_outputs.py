"""Gates that read what the experts give: all experts run first, once, and the gate scores their outputs."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError


class Fixed(nn.Module):
    """Gives the same log-probabilities for each row, and counts its calls."""

    def __init__(self, *probs):
        super().__init__()
        self.register_buffer("log_probs", torch.tensor(probs).log())
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.log_probs.expand(len(x), -1)


def modest_pair():
    return [Fixed(0.7, 0.2, 0.1), Fixed(0.4, 0.4, 0.2)]


def test_experts_are_weighed_by_their_probability_of_their_classes():
    experts = modest_pair()
    moe = mb.Mixture(mb.gates.OwnMass([[0, 1], [2]]), experts, combine=mb.LogMixture())
    with mb.record(moe) as log:
        y = moe(torch.zeros(3, 4))
    weights = torch.tensor([0.9, 0.2]) / 1.1
    assert torch.allclose(log[""][-1].weights, weights.expand(3, 2))
    expected = weights[0] * torch.tensor([0.7, 0.2, 0.1]) + weights[1] * torch.tensor([0.4, 0.4, 0.2])
    assert torch.allclose(y.exp(), expected.expand(3, 3))
    assert [expert.calls for expert in experts] == [1, 1]


def test_a_router_that_selects_takes_of_the_outputs_that_are_there():
    experts = modest_pair()
    gate = mb.gates.OwnMass([[0, 1], [2]])
    moe = mb.Mixture(gate, experts, router=mb.routers.Argmax(), combine=mb.LogMixture())
    with mb.record(moe, outputs=True) as log:
        y = moe(torch.zeros(3, 4))
    assert torch.allclose(y.exp(), torch.tensor([0.7, 0.2, 0.1]).expand(3, 3))
    assert log[""][-1].outputs.shape == (3, 2, 3)
    assert [expert.calls for expert in experts] == [1, 1]


def test_padding_reaches_no_expert():
    experts = modest_pair()
    experts[0].register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    sizes: list[int] = []
    moe = mb.Mixture(mb.gates.OwnMass([[0, 1], [2]]), experts)
    y = moe(torch.zeros(3, 4), mask=torch.tensor([True, False, True]))
    assert sizes == [2]
    assert y[1].count_nonzero() == 0
    assert torch.equal(y[0], y[2])


def test_a_trained_gate_of_outputs_begins_as_the_uniform_one_and_learns_whom_to_believe():
    torch.manual_seed(0)
    x = torch.randn(400, 2)
    target = (x[:, 0] > 0).long()

    class Sure(nn.Module):
        """Knows the target, and is surer of it than the other one is of its guess."""

        def __init__(self, column, scale):
            super().__init__()
            self.column, self.scale = column, scale

        def forward(self, rows):
            return torch.stack([-rows[:, self.column], rows[:, self.column]], 1) * self.scale

    experts = [Sure(0, 1.0), Sure(1, 5.0)]
    moe = mb.Mixture(mb.gates.OutputLinear(2, 2), experts, combine=mb.LogMixture())
    uniform = mb.Mixture(mb.gates.Uniform(2), experts, combine=mb.LogMixture())
    assert torch.allclose(moe(x), uniform(x))
    optimizer = torch.optim.Adam(moe.gate.parameters(), 0.1)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.nll_loss(moe(x), target).backward()
        optimizer.step()
    right = [(model(x).argmax(1) == target).float().mean().item() for model in (uniform, moe)]
    assert right[0] < 0.7
    assert right[1] > 0.95


def test_a_gate_without_outputs_says_who_gives_them():
    with pytest.raises(ArgumentError, match="which a mixture gives its gate"):
        mb.gates.OwnMass([[0], [1]])(torch.zeros(2, 3))
    with pytest.raises(ArgumentError, match="one vector of outputs for each of 2 rows and 2 experts"):
        mb.gates.OwnMass([[0], [1]])(torch.zeros(2, 3), {"expert_outputs": torch.zeros(2, 3, 4)})


def test_a_generalist_routes_by_the_mass_of_the_experts_classes():
    gate = mb.gates.ClassMass(Fixed(0.5, 0.3, 0.2), [[0, 1], [1, 2], None])
    assert torch.allclose(gate(torch.zeros(1, 4)).exp(), torch.tensor([[0.8, 0.5, 1.0]]))
    with pytest.raises(ArgumentError, match="positions below 3"):
        mb.gates.ClassMass(Fixed(0.5, 0.3, 0.2), [[0, 3]])(torch.zeros(1, 4))


def test_they_are_saved_and_loaded_with_the_experts_classes(tmp_path):
    experts = [
        mb.experts.Adapter(mb.experts.Linear(4, 3), classes=[0, 1], total=4, others=True),
        mb.experts.Adapter(mb.experts.Linear(4, 3), classes=[2, 3], total=4, others=True, frozen=True),
    ]
    classes = [expert.classes for expert in experts]
    x = torch.randn(5, 4)
    for gate in (
        mb.gates.OwnMass(classes),
        mb.gates.ClassMass(mb.experts.Linear(4, 4), classes),
        mb.gates.OutputLinear(2, 4),
        mb.gates.Constant(2),
    ):
        moe = mb.Mixture(gate, experts, combine=mb.LogMixture())
        mb.save(moe, tmp_path / type(gate).__name__)
        loaded = mb.load(tmp_path / type(gate).__name__)
        assert torch.equal(loaded(x), moe(x))
        assert loaded.experts[0].others
        assert loaded.experts[1].classes == (2, 3)
