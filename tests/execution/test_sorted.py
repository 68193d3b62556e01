"""Sorted rows: what is kept for the backward pass, and what it costs."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import moebius as mb
from moebius.execution._order import sort_by_expert
from moebius.execution._pool import Pool
from moebius.execution._segments.contract import ROWS
from moebius.execution._sorted_ffn import sorted_ffn
from moebius.execution.loop import Loop
from moebius.execution.padded import Padded
from moebius.execution.sorted import Sorted
from moebius.kit.registry import find, kinds
from moebius.networks.feed_forward import FEED_FORWARD, GATED

loop = Loop()
sorted = Sorted()


def stack(experts, features, hidden, activation="gelu"):
    torch.manual_seed(0)
    return mb.Stack([mb.experts.FFN(features, hidden, activation) for _ in range(experts)])


def test_worked():
    """Two experts x ↦ relu(x)² and x ↦ 10 relu(x)²; the second row goes to both, the third is dropped."""
    experts = mb.Stack([mb.experts.FFN(1, 1, "relu2", bias=False) for _ in range(2)])
    with torch.no_grad():
        experts.inner_weight.fill_(1)
        experts.outer_weight.copy_(torch.tensor([1.0, 10.0]).view(2, 1, 1))
    row_A, expert_A = torch.tensor([0, 1, 2, 1]), torch.tensor([1, 1, 0, 0])
    weight_A, kept_A = torch.tensor([1.0, 0.5, 1.0, 0.25]), torch.tensor([True, True, False, True])
    scores = torch.zeros(3, 2)
    selection = mb.Selection(row_A, expert_A, weight_A, kept_A)
    routing = mb.Routing.from_selection(scores, scores.softmax(-1), selection)
    x = torch.tensor([[1.0], [2.0], [3.0]])
    assert sorted(experts, routing, x).tolist() == [[10.0], [40.0], [0.0], [4.0]]
    assert sorted.sum(Pool(experts), routing, x).tolist() == [[10.0], [21.0], [0.0]]


@pytest.mark.parametrize("activation", FEED_FORWARD)
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_gradients_are_those_of_finite_differences(activation, weighted, bias, padded):
    torch.manual_seed(0)
    width = 4 if activation in GATED else 2
    shapes = [(4, 3), (3, width, 3), (3, width), (3, 3, 2), (3, 3)]
    parts = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    row_A, expert_A = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([0, 2, 2, 0, 2, 2])
    kept_A = torch.tensor([True, True, False, True, True, True])
    weight_A = torch.rand(6, dtype=torch.float64, requires_grad=True)
    order, counts = sort_by_expert(expert_A, kept_A, 3)

    def run(x, inner, inner_bias, outer, outer_bias, weight):
        biases = (inner_bias, outer_bias) if bias else (None, None)
        tensors = (x, inner, biases[0], outer, biases[1], row_A, weight if weighted else None, order, counts)
        return sorted_ffn(*tensors, activation, torch.float64, padded, True)[0]

    assert torch.autograd.gradcheck(run, (*parts, weight_A))


@pytest.mark.parametrize("execution", [sorted, Padded()])
def test_a_segment_of_several_blocks_is_complete(execution):
    experts = stack(2, 3, 4).double()
    x = torch.randn(2 * ROWS + 5, 3, dtype=torch.float64)
    routing = mb.routers.Argmax()(torch.tensor([2.0, 1.0]).expand(len(x), 2))
    results = []
    for run in (execution, loop):
        experts.zero_grad()
        y = run(experts, routing, x)
        y.square().sum().backward()
        results.append([y, *(parameter.grad.clone() for parameter in experts.parameters())])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_no_copy_of_gathered_rows_is_kept(activation):
    """For each assignment the backward keeps its hidden layer, its output (for the router's weight) and its indices."""
    features, hidden, k, rows = 64, 16, 2, 32
    moe = mb.layers.SparseFFN(features, hidden, experts=4, k=k, activation=activation)
    x = torch.randn(rows, features, requires_grad=True)
    routing = mb.call(moe, x)[1]["mixture"][0]
    inputs = {tensor.untyped_storage().data_ptr() for tensor in (x, *moe.parameters())}
    saved = {}

    def save(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        sorted.sum(Pool(moe.mixture.experts), routing, x)
    width = hidden * (2 if activation == "swiglu" else 1)
    bytes_per_assignment = 4 * (width + features) + 8 + 8 + 4
    # Gathered rows would be 16 KiB more; the numbers of rows of the experts are a few bytes.
    saved_bytes = sum(size for address, size in saved.items() if address not in inputs)
    assert saved_bytes <= rows * k * bytes_per_assignment + 1024


class WrittenBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations create."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        storages = {tensor.untyped_storage()._cdata for tensor in inputs}
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in storages:
                self.total += leaf.untyped_storage().nbytes()
        return result


@pytest.mark.parametrize("kind", kinds("execution"))
@pytest.mark.parametrize("made_of", ["ffn", "linear", "any"])
def test_the_backward_pass_is_not_quadratic_in_the_number_of_experts(kind, made_of):
    """Indexing stacked parameters expert by expert would write a gradient of the size of all for each expert."""
    count = 64
    make = {
        "ffn": lambda: mb.experts.FFN(32, 32),
        "linear": lambda: mb.experts.Linear(32, 32),
        "any": lambda: nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 32)),
    }[made_of]
    experts = mb.Stack.of(make, count)
    execution, routing, x = find("execution", kind)(), mb.routers.TopK(2)(torch.randn(4, count)), torch.randn(4, 32)
    refusal = execution.refuses(Pool(experts), routing, x)
    if refusal is not None:
        pytest.skip(f"{kind} {refusal}")
    y = execution(experts, routing, x)
    with WrittenBytes() as written:
        y.sum().backward()
    assert written.total < 8 * sum(parameter.nbytes for parameter in experts.parameters())
