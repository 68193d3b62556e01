"""A gate inside a gate: a tree of mixtures against the flat mixture and against its branches."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.lab.model.build import build_model

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
FACTS = {"features": 4, "channels": 1, "size": 2, "classes": 3, "domains": 2}
COMBINES = [mb.WeightedSum(), mb.LogMixture()]


class Product(nn.Module):
    """The logarithm of a leaf's weight: that of its branch and that inside its branch, added."""

    def __init__(self, tree):
        super().__init__()
        self.outer, self.inner = tree.gate, nn.ModuleList([branch.gate for branch in tree.experts])

    def forward(self, x):
        outer = self.outer(x).log_softmax(-1)
        return torch.cat([outer[:, [b]] + gate(x).log_softmax(-1) for b, gate in enumerate(self.inner)], -1)


def tree(combine, router=None, leaves=(2, 3)):
    torch.manual_seed(0)
    branches = [
        mb.Mixture(nn.Linear(4, count), [nn.Linear(4, 3) for _ in range(count)], combine=combine) for count in leaves
    ]
    return mb.Mixture(nn.Linear(4, len(branches)), branches, router, combine).double()


class Counting(nn.Module):
    """Passes on, and remembers how many rows each call saw."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.seen = inner, []

    def forward(self, x):
        self.seen.append(len(x))
        return self.inner(x)


@pytest.mark.parametrize("combine", COMBINES)
def test_a_soft_tree_is_the_flat_mixture_with_the_products_of_its_weights(combine):
    deep = tree(combine)
    flat = mb.Mixture(Product(deep), [leaf for branch in deep.experts for leaf in branch.experts], combine=combine)
    of_tree, of_flat = deep(X), flat(X)
    torch.testing.assert_close(of_tree, of_flat)
    parameters = list(deep.parameters())
    target = torch.arange(12) % 3
    gradients = [torch.autograd.grad(nn.functional.cross_entropy(y, target), parameters) for y in (of_tree, of_flat)]
    torch.testing.assert_close(*gradients)
    assert all(gradient.count_nonzero() for gradient in gradients[0])


def test_the_leaves_weights_are_products_and_a_distribution():
    deep = tree(mb.WeightedSum())
    _, log = mb.call(deep, X)
    outer, *inner = (log[path][0] for path in ("", "experts.0", "experts.1"))
    weights = torch.cat([outer.weights[:, [b]] * routing.weights for b, routing in enumerate(inner)], -1)
    torch.testing.assert_close(weights, Product(deep)(X).exp())
    torch.testing.assert_close(weights.sum(-1), torch.ones(12, dtype=torch.float64))


@pytest.mark.parametrize("combine", COMBINES)
def test_a_hard_upper_level_is_the_branch_that_it_chose(combine):
    deep = tree(combine, mb.routers.Argmax())
    chosen = deep.gate(X).argmax(-1)
    assert 0 < chosen.sum() < 12
    y, log = mb.call(deep, X)
    for branch in range(2):
        rows = (chosen == branch).nonzero().squeeze(1)
        torch.testing.assert_close(y[rows], deep.experts[branch](X[rows]))
        assert log[f"experts.{branch}"][0].rows.tolist() == rows.tolist()
    assert log[""][0].rows is None


def test_a_hard_upper_level_runs_each_branch_once_on_its_rows_only():
    deep = tree(mb.LogMixture(), mb.routers.Argmax())
    chosen = deep.gate(X).argmax(-1)
    for branch in deep.experts:
        branch.gate = Counting(branch.gate)
        branch.experts = nn.ModuleList([Counting(leaf) for leaf in branch.experts])
    deep(X)
    for number, branch in enumerate(deep.experts):
        count = int((chosen == number).sum())
        assert [part.seen for part in (branch.gate, *branch.experts)] == [[count]] * (1 + len(branch.experts))


def test_a_branch_that_no_row_takes_does_not_run_and_has_gradients_of_zero():
    deep = tree(mb.LogMixture(), mb.routers.Argmax())
    with torch.no_grad():
        deep.gate.weight.zero_()
        deep.gate.bias.copy_(torch.tensor([1.0, 0.0]))
    deep.experts[1].gate = Counting(deep.experts[1].gate)
    deep(X).sum().backward()
    assert deep.experts[1].gate.seen == []
    assert all(p.grad is not None and not p.grad.any() for p in deep.experts[1].parameters())
    assert any(p.grad.any() for p in deep.experts[0].parameters())


def test_a_tree_whose_branches_are_equal_is_its_branch():
    deep = tree(mb.LogMixture(), leaves=(2, 2))
    deep.experts[1].load_state_dict(deep.experts[0].state_dict())
    torch.testing.assert_close(deep(X), deep.experts[0](X))


def spec(router):
    inner = {
        "kind": "mixture",
        "gate": {"kind": "linear"},
        "experts": {"kind": "linear", "count": 2},
        "router": {"kind": "per_class"},
        "combine": {"kind": "log_mixture"},
    }
    return {
        "gate": {"kind": "linear"},
        "experts": [inner, {**inner, "count": 2}, {"kind": "linear"}],
        "router": {"kind": router},
        "combine": {"kind": "log_mixture"},
    }


def test_a_tree_from_a_recipe():
    torch.manual_seed(0)
    images = X.float().view(12, 1, 2, 2)
    moe = build_model(spec("argmax"), FACTS)
    assert [type(branch) for branch in moe.experts] == [mb.Mixture] * 3 + [mb.experts.Linear]
    assert moe.gate.linear.out_features == 4
    assert [branch.gate.linear.out_features for branch in moe.experts[:3]] == [2 * 3] * 3
    chosen = moe.gate(images).argmax(-1)
    assert len(chosen.unique()) > 1
    for row, y in enumerate(moe(images)):
        branch = moe.experts[chosen[row]](images[[row]])[0]
        torch.testing.assert_close(y, branch.log_softmax(-1))


def test_a_soft_tree_from_a_recipe_trains_every_part():
    torch.manual_seed(0)
    moe = build_model(spec("soft"), FACTS)
    nn.functional.nll_loss(moe(X.float().view(12, 1, 2, 2)), torch.arange(12) % 3).backward()
    assert all(parameter.grad.count_nonzero() for parameter in moe.parameters())
