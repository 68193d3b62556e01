"""A mixture whose gate and experts read different inputs of a row."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, meta):
        return self.linear(meta)


class Expert(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 2)

    def forward(self, image, context=None):
        return self.linear(image)


def make(router=None):
    torch.manual_seed(0)
    return mb.Mixture(Gate(), [Expert() for _ in range(4)], router).double()


def inputs(*batch):
    torch.manual_seed(1)
    meta, image = (torch.randn(*batch, width, dtype=torch.float64, requires_grad=True) for width in (3, 5))
    return {"meta": meta, "image": image, "unused": torch.zeros(1)}


ROUTERS = [mb.routers.Soft, lambda: mb.routers.TopK(2), mb.routers.Argmax]


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("batch", [(6,), (3, 4)])
def test_equals_the_readable_sum_in_output_and_every_gradient(router, batch):
    moe, x = make(router()), inputs(*batch)
    y = moe(x)
    with mb.record(moe) as log:
        moe(x)
    weights = log[""][-1].weights.unflatten(0, batch)
    expected = sum(weights[..., number, None] * expert(x["image"]) for number, expert in enumerate(moe.experts))
    torch.testing.assert_close(y, expected)
    tensors = [*moe.parameters(), x["meta"], x["image"]]
    for tensor in tensors:
        tensor.grad = None
    y.square().sum().backward()
    gradients = [torch.zeros_like(tensor) if tensor.grad is None else tensor.grad.clone() for tensor in tensors]
    for tensor in tensors:
        tensor.grad = None
    expected.square().sum().backward()
    for tensor, gradient in zip(tensors, gradients, strict=True):
        torch.testing.assert_close(torch.zeros_like(tensor) if tensor.grad is None else tensor.grad, gradient)


def test_the_parts_by_name_equal_the_parameters_by_name():
    moe, x = make(), inputs(6)
    assert torch.equal(moe({"gate": x["meta"], "experts": x["image"]}), moe(x))
    named = mb.Mixture(nn.Linear(3, 2), [nn.Linear(5, 2) for _ in range(2)]).double()
    assert named({"gate": x["meta"], "experts": x["image"]}).shape == (6, 2)


def test_padding_is_padding_of_both():
    moe, x, mask = make(mb.routers.TopK(1)), inputs(3, 4), torch.rand(3, 4) > 0.3
    torch.testing.assert_close(moe(x, mask=mask), moe(x) * mask.unsqueeze(-1))


def test_stacks_and_adapters_have_the_parameters_of_what_is_inside():
    moe, x = make(mb.routers.TopK(2)), inputs(6)
    expected = moe(x)
    stacked = mb.Mixture(moe.gate, mb.Stack(list(moe.experts)), mb.routers.TopK(2))
    adapted = mb.Mixture(moe.gate, [mb.experts.Adapter(expert) for expert in moe.experts], mb.routers.TopK(2))
    for other in (stacked, adapted):
        torch.testing.assert_close(other(x), expected)
    assert stacked.chosen(x).name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda moe, x: x.pop("meta"),
            r'"gate" and "experts", or one by the name of a parameter of the gate\'s forward',
        ),
        (lambda moe, x: x.pop("image"), "a parameter of every expert's forward"),
        (lambda moe, x: moe.experts.append(nn.Linear(5, 2)), "a parameter of every expert's forward"),
        (lambda moe, x: x.update(meta=x["meta"][:4]), r"as many rows for the gate as for the experts.*\(4, 3\)"),
        (lambda moe, x: x.update(image=(x["image"],)), "needs one tensor for the experts"),
    ],
)
def test_what_nothing_tells_is_refused(change, message):
    moe, x = make(), inputs(6)
    change(moe, x)
    with pytest.raises(ArgumentError, match=message) as error:
        moe(x)
    assert 'moe({"gate": ' in error.value.fix
