import copy

import torch

import moebius as mb
from moebius.lab.data.split import Split
from moebius.lab.training.fit_parts import fit_parts

ROWS = torch.randn(40, 3)
SPLIT = Split(ROWS, torch.zeros(40, dtype=torch.int64), torch.zeros(40, dtype=torch.int64))


def make(count=2):
    experts = [mb.experts.Table(3, 2, numeric="piecewise", bins=3) for _ in range(count)]
    return mb.Mixture(mb.gates.Table(3, count, numeric="piecewise", bins=4), experts)


def test_gate_and_experts_see_the_training_rows():
    moe = make()
    fit_parts(moe, SPLIT)
    for part in (moe.gate, *moe.experts):
        edges = part.network.encoder.numbers.edges
        assert torch.equal(edges[:, 0], ROWS.min(0).values)
        assert torch.equal(edges[:, -1], ROWS.max(0).values)


def test_experts_of_a_stack_see_them_too():
    moe = make()
    moe.experts = mb.Stack(list(moe.experts))
    fit_parts(moe, SPLIT)
    alone = mb.experts.Table(3, 2, numeric="piecewise", bins=3)
    alone.fit_rows(ROWS)
    for expert in moe.experts.unstacked():
        assert torch.equal(expert.network.encoder.numbers.edges, alone.network.encoder.numbers.edges)


def test_a_network_of_a_stage_keeps_what_it_has():
    network = mb.experts.Table(3, 2, numeric="piecewise", bins=3)
    before = copy.deepcopy(network.state_dict())
    moe = mb.Mixture(mb.gates.Linear(3, 1), [mb.experts.Adapter(network)])
    fit_parts(moe, SPLIT)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_any_part_with_the_method_is_called_with_rows_as_the_model_gets_them():
    class Mean(torch.nn.Module):
        def fit_rows(self, rows):
            self.mean = rows.mean()

    model = torch.nn.Sequential(Mean(), torch.nn.Linear(3, 2))
    fit_parts(model, Split(torch.full((4, 1, 2, 2), 255, dtype=torch.uint8), SPLIT.labels[:4], SPLIT.domains[:4]))
    assert model[0].mean == 1
