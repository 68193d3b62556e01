"""Blocks in the words of their authors."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError

X = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(5))
Described = mb.integrations.Described


class Inside(nn.Module):
    """Routes in its own forward, as the Mixtral blocks of transformers 4 do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.experts = nn.Linear(4, 3, bias=False), nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        rows = x.reshape(-1, 4)
        weights, chosen = self.gate(rows).softmax(-1).topk(2)
        weights = weights / weights.sum(-1, keepdim=True)
        y = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            row, place = torch.where(chosen == number)
            y = y.index_add(0, row, expert(rows[row]) * weights[row, place, None])
        return y.view_as(x)


class Returning(nn.Module):
    """A gate that returns some of logits, weights and indices, in an order of its own."""

    def __init__(self, *names: str):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.names = nn.Linear(4, 3, bias=False), names

    def forward(self, x):
        scores = self.linear(x)
        weights, indices = scores.softmax(-1).topk(2)
        values = {"scores": scores, "weights": weights, "indices": indices, "_loss": scores.square().mean()}
        values["dense"] = torch.zeros_like(scores).scatter(-1, indices, weights)
        return tuple(values[name] for name in self.names)


class Outside(nn.Module):
    def __init__(self, *names: str):
        super().__init__()
        self.router, self.networks = Returning(*names), nn.ModuleDict({str(n): nn.Linear(4, 4) for n in range(3)})

    def forward(self, x):
        self.router(x)
        return x


def test_scores_alone_and_a_router_of_ours():
    model = nn.Sequential(Inside(), Inside())
    description = Described("gate", mb.routers.TopK(2), experts="experts")
    with mb.watch(model, outputs=True, describe={"*": description}) as log:
        y = model(X)
    assert list(log) == ["0", "1"]
    assert torch.equal(y, model(X))
    rebuilt = torch.einsum("te,ted->td", log["1"][0].weights, log["1"][0].outputs)
    torch.testing.assert_close(rebuilt.view_as(y), y)
    assert torch.equal(log["0"][0].scores, model[0].gate(X.view(-1, 4)))


def test_a_router_of_ours_draws_no_noise_and_is_left_alone():
    router = mb.routers.NoisyTopK(2)
    description = Described("gate", router)
    block = Inside()
    block.gate = nn.Linear(4, 6)
    before = torch.get_rng_state()
    with mb.watch(block, describe={"": description}) as log:
        block.gate(X)
    assert torch.equal(torch.get_rng_state(), before)
    assert router.training
    assert log[""][0].weights.shape == (10, 3)


@pytest.mark.parametrize(
    "returns",
    [
        ("scores", "weights", "indices"),
        ("weights", "indices", "scores"),
        ("_loss", "indices", "weights", "scores"),
    ],
)
def test_scores_weights_and_indices_in_any_order(returns):
    block = Outside(*returns)
    with mb.watch(block, outputs=True, describe={"": Described("router", returns=returns, experts="networks")}) as log:
        block(X)
    (routing,) = log[""]
    scores, weights, indices = Returning("scores", "weights", "indices")(X.view(-1, 4))
    assert torch.equal(routing.scores, scores)
    assert torch.equal(routing.weights.gather(1, indices), weights)
    assert (routing.weights != 0).sum() == 20
    torch.testing.assert_close(routing.probs, scores.softmax(-1))
    assert routing.distribution
    torch.testing.assert_close(routing.outputs[:, 2], block.networks["2"](X.view(-1, 4)))


@pytest.mark.parametrize(
    ("names", "returns"), [(("weights", "indices"), ("weights", "indices")), (("dense",), ("weights",))]
)
def test_weights_without_scores(names, returns):
    block = Outside(*names)
    with mb.watch(block, describe={"": Described("router", returns=returns, experts="networks")}) as log:
        block(X)
    (routing,) = log[""]
    _, weights, indices = Returning("scores", "weights", "indices")(X.view(-1, 4))
    assert torch.equal(routing.weights, torch.zeros(10, 3).scatter(1, indices, weights))
    assert torch.equal(routing.probs, routing.weights)
    assert torch.equal(routing.scores, routing.weights.log())
    assert not routing.distribution
    again = mb.Routing.from_selection(routing.scores, routing.probs, routing.selection)
    assert torch.equal(again.weights, routing.weights)


def test_another_normalisation():
    block = Outside("scores", "weights", "indices")
    description = Described("router", returns=("scores", "weights", "indices"), normalisation="sigmoid")
    with mb.watch(block, describe={"": description}) as log:
        block(X)
    torch.testing.assert_close(log[""][0].probs, log[""][0].scores.sigmoid())
    assert not log[""][0].distribution


def test_a_description_comes_before_a_family():
    class Experts(nn.Module):
        def forward(self, x, indices, weights):
            return x

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.experts = nn.Linear(4, 3), Experts()

        def forward(self, x):
            best = self.gate(x).softmax(-1).topk(2)
            return self.experts(x, best.indices, best.values)

    block = Block()
    with mb.watch(block) as log:
        block(X.view(-1, 4))
    assert (log[""][0].weights != 0).sum() == 20
    with mb.watch(block, describe={"": Described("gate", mb.routers.TopK(1))}) as log:
        block(X.view(-1, 4))
    assert (log[""][0].weights != 0).sum() == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"^router: scores alone need a router.*got None\n  fix: router=mb.routers.TopK\(2\)"),
        ({"returns": ("logits", "weights")}, "^returns: needs names of the gate's outputs"),
        ({"returns": ("indices",)}, "^returns: needs names"),
        ({"returns": ("weights", "weights")}, "^returns: needs names"),
        ({"returns": ("weights",), "router": mb.routers.TopK(2)}, "^router: is not used where the gate returns"),
        ({"returns": ("weights",), "normalisation": "softmacks"}, "^normalisation: needs one of.*did you mean softmax"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=f"(?s){message}"):
        Described("gate", **arguments)


def test_paths_that_are_none_are_refused_by_name():
    for argument, description in {
        "gate": Described("gaet", mb.routers.TopK(2)),
        "experts": Described("gate", mb.routers.TopK(2), experts="exparts"),
    }.items():
        message = f"^{argument}: needs the path of a part of Inside, which has gate, experts, got"
        with pytest.raises(ArgumentError, match=message), mb.watch(Inside(), describe={"": description}):
            pass
    with pytest.raises(ArgumentError, match=r"^describe: needs the paths of modules.*\n  fix: did you mean 0\.gate"):
        mb.watch(nn.Sequential(Inside()), describe={"0.gaet": Described("gate", mb.routers.TopK(2))})


def test_what_the_gate_does_not_return_is_refused_when_it_runs():
    block = Outside("weights", "indices")
    returns = ("scores", "weights", "indices")
    with (
        pytest.raises(ArgumentError, match=r"^returns: names 3 outputs, and the gate 'router' returned 2"),
        mb.watch(block, describe={"": Described("router", returns=returns)}),
    ):
        block(X)
    with (
        pytest.raises(ArgumentError, match=r"^experts: indices without scores need the experts"),
        mb.watch(block, describe={"": Described("router", returns=returns[1:])}),
    ):
        block(X)


def test_outputs_need_experts_that_can_be_run():
    for experts, message in ((None, "its description names no experts"), ("gate", "does not take rows, indices and")):
        description = Described("gate", mb.routers.TopK(2), experts=experts)
        block = Inside()
        with pytest.raises(mb.MoebiusError, match=message), mb.watch(block, outputs=True, describe={"": description}):
            block(X)
