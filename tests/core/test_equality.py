"""Which modules are one computation with other numbers."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.core.equality import describe_difference, has_hooks


def tied():
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    module[1].weight = module[0].weight
    return module


class Told(nn.Module):
    """A module that keeps whatever it is given."""

    def __init__(self, value):
        super().__init__()
        self.value = value


class Counting(nn.Module):
    """A module with a buffer of a length of its own."""

    def __init__(self, length):
        super().__init__()
        self.register_buffer("seen", torch.zeros(length))


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        (nn.Linear(2, 3), nn.Linear(2, 3), None),
        (tied(), tied(), None),
        (Told({"a": [1, 2]}), Told({"a": [1, 2]}), None),
        (mb.experts.MLP(4, 3, [5]), mb.experts.MLP(4, 3, [5]), None),
        (nn.Linear(2, 3), mb.experts.Linear(2, 3), "their classes differ"),
        (nn.Linear(2, 3), nn.Linear(2, 3, bias=False), "their parameters' shapes differ"),
        (Counting(2), Counting(3), "their parameters' shapes differ"),
        (nn.Linear(2, 3), nn.Linear(2, 3).double(), "their tensors' formats, devices or kinds differ"),
        (nn.Linear(2, 3), nn.Linear(2, 3, device="meta"), "their tensors' formats, devices or kinds differ"),
        (tied(), nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(2))), "their parameters' shapes differ"),
        (nn.Sequential(nn.ReLU()), nn.Sequential(nn.Tanh()), "their structures differ"),
        (nn.Linear(2, 3), nn.Linear(2, 3).eval(), "their structures differ"),
        (mb.experts.FFN(4, 5), mb.experts.FFN(4, 5, "relu2"), "their structures differ"),
        (Told({"a": 1}), Told({"b": 1}), "their structures differ"),
        (Told(1), Told(1.0), "their structures differ"),
        (Told(torch.ones(1)), Told(torch.ones(1)), "their structures differ"),
    ],
)
def test_in_what_two_modules_differ(one, other, why):
    assert describe_difference([one, one, other]) == describe_difference([other, one]) == why


@pytest.mark.parametrize("hook", ["forward_hook", "forward_pre_hook", "full_backward_hook"])
def test_a_hook_is_seen_wherever_it_waits(hook):
    experts = [nn.Sequential(nn.Linear(2, 3)) for _ in range(2)]
    assert not has_hooks(experts)
    handle = getattr(experts[1][0], f"register_{hook}")(lambda *_: None)
    assert has_hooks(experts)
    handle.remove()
    assert not has_hooks(experts)
