"""Which modules compute the same with other values of parameters."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.core.equality import describe_difference, has_hooks, named_parts


def make_tied():
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    module[1].weight = module[0].weight
    return module


class Holder(nn.Module):
    """A module with a value as an attribute."""

    def __init__(self, value):
        super().__init__()
        self.value = value


class SizedBuffer(nn.Module):
    """A module with a buffer of this length."""

    def __init__(self, length):
        super().__init__()
        self.register_buffer("counts", torch.zeros(length))


@pytest.mark.parametrize(
    ("left", "right", "difference"),
    [
        (nn.Linear(2, 3), nn.Linear(2, 3), None),
        (make_tied(), make_tied(), None),
        (Holder({"a": [1, 2]}), Holder({"a": [1, 2]}), None),
        (mb.experts.MLP(4, 3, [5]), mb.experts.MLP(4, 3, [5]), None),
        (nn.Linear(2, 3), mb.experts.Linear(2, 3), "their classes differ"),
        (nn.Linear(2, 3), nn.Linear(2, 3, bias=False), "their parameters' shapes differ"),
        (SizedBuffer(2), SizedBuffer(3), "their parameters' shapes differ"),
        (nn.Linear(2, 3), nn.Linear(2, 3).double(), "their tensors' formats, devices or kinds differ"),
        (nn.Linear(2, 3), nn.Linear(2, 3, device="meta"), "their tensors' formats, devices or kinds differ"),
        (
            make_tied(),
            nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(2))),
            "their parameters' shapes differ",
        ),
        (nn.Sequential(nn.ReLU()), nn.Sequential(nn.Tanh()), "their structures differ"),
        (nn.Linear(2, 3), nn.Linear(2, 3).eval(), "their structures differ"),
        (mb.experts.FFN(4, 5), mb.experts.FFN(4, 5, "relu2"), "their structures differ"),
        (Holder({"a": 1}), Holder({"b": 1}), "their structures differ"),
        (Holder(1), Holder(1.0), "their structures differ"),
        (Holder(torch.ones(1)), Holder(torch.ones(1)), "their structures differ"),
    ],
)
def test_in_what_two_modules_differ(left, right, difference):
    assert describe_difference([left, left, right]) == describe_difference([right, left]) == difference


@pytest.mark.parametrize("hook", ["forward_hook", "forward_pre_hook", "full_backward_hook"])
def test_a_hook_is_seen_wherever_it_waits(hook):
    experts = [nn.Sequential(nn.Linear(2, 3)) for _ in range(2)]
    assert not has_hooks(experts)
    handle = getattr(experts[1][0], f"register_{hook}")(lambda *_: None)
    assert has_hooks(experts)
    handle.remove()
    assert not has_hooks(experts)


def test_parts_are_named_as_torch_names_them():
    shared = nn.Linear(2, 2)
    module = nn.Sequential(nn.Sequential(shared, nn.ReLU()), mb.experts.MLP(2, 2, [3]), shared)
    module.register_module("none", None)
    assert named_parts(module) == list(module.named_modules())
