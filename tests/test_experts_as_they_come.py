"""Experts that were made for something else: what they give, how it is refused, and that the fix is right."""

import copy
import warnings
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import moebius as mb
from moebius.kit.errors import ArgumentError

X = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Named = namedtuple("Named", ["loss", "logits"])


@dataclass
class Answer:
    loss: Any
    logits: Tensor


def model_output(loss, logits):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = pytest.importorskip("transformers.modeling_outputs", reason="pip install -e '.[dev]'")
    return outputs.SequenceClassifierOutput(loss=loss, logits=logits)


# What the expert gives of its logits, and the part that is the output.
GIVES = {
    "tuple": (lambda y: (y, y.sum()), 0),
    "loss_first": (lambda y: (y.mean(), y), 1),
    "named_tuple": (lambda y: Named(y.mean(), y), 1),
    "list": (lambda y: [y], 0),
    "dict": (lambda y: {"features": y.exp(), "logits": y}, "logits"),
    "other_dict": (lambda y: {"loss": y.mean(), "scores": y}, "scores"),
    "dataclass": (lambda y: Answer(None, y), "logits"),
    "model_output": (lambda y: model_output(y.mean(), y), "logits"),
}
ROUTERS = {"soft": mb.routers.Soft(), "top_1": mb.routers.TopK(1), "top_2": mb.routers.TopK(2)}
CASES = [(router, execution) for router in ROUTERS for execution in ("auto", "loop", "sorted", "dense")]


class Net(nn.Module):
    """A linear layer whose output comes in another form."""

    def __init__(self, gives="tuple", outputs=3):
        super().__init__()
        self.linear, self.gives = nn.Linear(4, outputs), gives

    def forward(self, x):
        return GIVES[self.gives][0](self.linear(x))


def nets(gives, **options):
    torch.manual_seed(0)
    return [Net(gives, **options).double() for _ in range(3)]


def mixture(experts, router="soft", execution="auto"):
    torch.manual_seed(1)
    return mb.Mixture(mb.gates.Linear(4, 3), experts, ROUTERS[router], execution=execution).double()


def run(experts, router, execution, stacked=False):
    return mixture(mb.Stack(experts) if stacked else experts, router, execution)(X)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize(("router", "execution"), CASES)
@pytest.mark.parametrize("gives", GIVES)
def test_one_error_says_which_expert_gave_what_and_its_fix_is_right(gives, router, execution, stacked):
    experts = nets(gives)
    with pytest.raises(ArgumentError, match=r"^experts\.\d: the expert, a Net, must give one tensor") as caught:
        run(experts, router, execution, stacked)
    assert type(experts[0](X)).__name__ in caught.value.value
    assert caught.value.fix.endswith(f", output={GIVES[gives][1]!r})".replace("'", '"'))
    adapters = [eval(caught.value.fix, {"mb": mb, "expert": expert}) for expert in experts]
    found = run(adapters, router, execution, stacked)
    torch.testing.assert_close(found, run([expert.linear for expert in experts], router, execution, stacked))


@pytest.mark.parametrize("output", [1, -1, "logits", lambda given: given.logits, lambda given: given[1]])
@pytest.mark.parametrize("stacked", [False, True])
def test_a_part_goes_by_a_name_a_place_or_a_function(output, stacked):
    experts = nets("named_tuple")
    adapters = [mb.experts.Adapter(expert, output=output) for expert in experts]
    expected = run([expert.linear for expert in experts], "top_2", "auto")
    torch.testing.assert_close(run(adapters, "top_2", "auto", stacked), expected)


@pytest.mark.parametrize("stacked", [False, True])
def test_frozen_and_with_classes_of_its_own(stacked):
    adapters = [
        mb.experts.Adapter(net, output="logits", frozen=True, classes=[0, 2, 3], total=5) for net in nets("dict")
    ]
    plain = [mb.experts.Adapter(net.network.linear, frozen=True, classes=[0, 2, 3], total=5) for net in adapters]
    moe, expected = mixture(mb.Stack(adapters) if stacked else adapters, "top_2"), mixture(plain, "top_2")
    torch.testing.assert_close(moe(X), expected(X))
    moe(X)[:, [0, 2, 3]].square().sum().backward()
    assert all(parameter.grad is None for parameter in moe.experts.parameters())
    assert moe.gate.linear.weight.grad.any()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("gives", ["tuple", "dict"])
def test_saved_and_loaded(tmp_path, gives, frozen):
    adapters = [mb.experts.Adapter(net, output=GIVES[gives][1], frozen=frozen) for net in nets(gives)]
    moe = mixture(adapters, "top_2").eval()
    mb.save(moe, tmp_path)
    again = mb.load(tmp_path, experts=[Net(gives) for _ in range(3)]).double()
    assert torch.equal(again(X), moe(X))
    assert [expert.output for expert in again.experts] == [GIVES[gives][1]] * 3
    assert [p.requires_grad for p in again.experts.parameters()] == [not frozen] * 6


def test_saved_with_a_function_which_loading_is_given_again(tmp_path):
    def logits(given):
        return given["logits"]

    moe = mixture([mb.experts.Adapter(net, output=logits) for net in nets("dict")]).eval()
    mb.save(moe, tmp_path)
    parts = {number: Net("dict") for number in range(3)}
    with pytest.raises(ArgumentError, match=r"experts\.0\.output"):
        mb.load(tmp_path, experts=parts)
    again = mb.load(tmp_path, experts={**parts, **{f"experts.{e}.output": logits for e in range(3)}}).double()
    assert torch.equal(again(X), moe(X))
    copied = copy.deepcopy(again)
    assert torch.equal(copied(X), moe(X))


@pytest.mark.parametrize("gives", GIVES)
def test_a_gate_that_gives_something_else(gives):
    torch.manual_seed(0)
    gate, experts = Net(gives).double(), [nn.Linear(4, 2).double() for _ in range(3)]
    with pytest.raises(ArgumentError, match=r"^gate: must give one tensor; Net gives something else") as caught:
        mb.Mixture(gate, experts)(X)
    adapter = eval(caught.value.fix, {"mb": mb, "gate": gate})
    torch.testing.assert_close(mb.Mixture(adapter, experts)(X), mb.Mixture(gate.linear, experts)(X))


@pytest.mark.parametrize("rows", [2, 9])
@pytest.mark.parametrize("gives", [None, "dict"])
def test_a_gate_that_says_it_gives_more_and_does_not(gives, rows):
    """Two rows are no pair."""
    gate = nn.Linear(4, 3).double() if gives is None else Net(gives).double()
    gate.gives_aux = True
    with pytest.raises(ArgumentError, match=r"^gate: must give a pair, scores and a mapping, where its `gives_aux`"):
        mb.Mixture(gate, [nn.Linear(4, 2).double() for _ in range(3)])(X[:rows])


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            "logitz",
            "output: names no part of what the network, a Net, gives, dict with 'features', 'logits', got 'logitz'",
        ),
        (5, "output: names no part of"),
        (lambda given: given.logits, "output: names no part of"),
        (None, r"output: must pick one tensor of what the network, a Net, gives, got \"dict with"),
        (lambda given: [given], "output: must pick one tensor"),
    ],
)
def test_an_adapter_that_looks_for_what_is_not_there(output, said):
    net = Net("dict").double()
    with pytest.raises(ArgumentError, match=said) as caught:
        mb.experts.Adapter(net, output=output)(X)
    assert torch.equal(eval(caught.value.fix, {"mb": mb, "network": net})(X), net.linear(X))
