"""Experts whose outputs do not belong to rows, and inputs that a mixture does not take."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError

X = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ROUTERS = {"soft": mb.routers.Soft(), "top_1": mb.routers.TopK(1), "top_2": mb.routers.TopK(2)}
CASES = [(router, execution) for router in ROUTERS for execution in ("auto", "loop", "sorted", "dense")]


def run_mixture(experts, router, execution, stacked=False):
    torch.manual_seed(1)
    experts = mb.Stack(experts) if stacked else experts
    return mb.Mixture(mb.gates.Linear(4, 3), experts, ROUTERS[router], execution=execution).double()(X)


WRONG_OUTPUTS = {
    "nothing": (lambda y: None, "None"),
    "a number": (lambda y: y.mean(), r"a tensor of shape \(\)"),
    "one row": (lambda y: y.mean(0, keepdim=True), r"a tensor of shape \(1, 3\)"),
    "more rows": (lambda y: torch.cat([y, y]), r"a tensor of shape \(\d+, 3\)"),
    "no tensor": (lambda y: y.tolist(), "a list of a list of float"),
    "a float": (lambda y: 0.5, "float"),
}


class WrongExpert(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.linear, self.name = nn.Linear(4, 3), name

    def forward(self, x):
        return WRONG_OUTPUTS[self.name][0](self.linear(x))


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize(("router", "execution"), CASES)
@pytest.mark.parametrize("name", [name for name in WRONG_OUTPUTS if name != "one row"])
def test_what_is_no_output_of_rows(name, router, execution, stacked):
    rule = rf"^experts\.\d: the expert, a WrongExpert, must give one tensor.*got .{WRONG_OUTPUTS[name][1]}"
    with pytest.raises(ArgumentError, match=rule) as caught:
        run_mixture([WrongExpert(name).double() for _ in range(3)], router, execution, stacked)
    assert caught.value.fix


TORCH_EXPERTS = {
    "cells": lambda: nn.LSTMCell(4, 3),
    "recurrent": lambda: nn.GRU(4, 3),
    "rows merged": lambda: nn.Sequential(nn.Linear(4, 3), nn.Flatten(0)),
    "no tensors": lambda: nn.Flatten(0),
    "indices": lambda: nn.Sequential(nn.Linear(4, 3), nn.Unflatten(1, (1, 3)), nn.MaxPool1d(2, return_indices=True)),
    "indices alone": lambda: nn.MaxPool1d(2, return_indices=True),
}


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize(("router", "execution"), [*CASES, ("soft", "stacked")])
@pytest.mark.parametrize("name", TORCH_EXPERTS)
def test_torchs_own_modules_that_give_something_else_are_refused_alike(name, router, execution, stacked):
    """Also where equal experts of known classes would be computed at once."""
    experts = [TORCH_EXPERTS[name]().double() for _ in range(3)]
    refusal = r"|^execution: stacked (may differ|needs equal)" if execution == "stacked" else ""
    with pytest.raises(ArgumentError, match=rf"^experts\.\d: the expert, a \w+, must give one tensor{refusal}"):
        run_mixture(experts, router, execution, stacked)


def test_one_row_for_all():
    with pytest.raises(ArgumentError, match=r"^experts\.0: .* of its 9 rows, got 'a tensor of shape \(1, 3\)'"):
        run_mixture([WrongExpert("one row").double() for _ in range(3)], "soft", "auto")


@pytest.mark.parametrize(("router", "execution"), CASES)
def test_outputs_of_unequal_shapes(router, execution):
    experts = [nn.Linear(4, 3).double(), nn.Linear(4, 2).double(), nn.Linear(4, 3).double()]
    with pytest.raises(ArgumentError, match=r"^experts\.\d: gives rows of shape") as caught:
        run_mixture(experts, router, execution)
    assert "(2,)" in str(caught.value)
    assert "(3,)" in str(caught.value)
    equal_shapes = [experts[0], nn.Sequential(experts[1], nn.Linear(2, 3).double()), experts[2]]
    assert run_mixture(equal_shapes, router, execution).shape == (9, 3)


CALLS_OF_USERS = """
import torch, moebius as mb
from torch import nn
x, moe = torch.randn(5, 4), mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 3), nn.Linear(4, 3)])
for second in (x, (x,), 3):
    for call in (moe, moe.chosen):
        try:
            call(x, second)
        except mb.MoebiusError as error:
            assert str(error).startswith("context: needs a mapping"), error
            assert 'moe(x, context={"name": tensor})' in error.fix
        else:
            raise SystemExit(f"took {second}")
for mask in ([True] * 5, "x", 1):
    try:
        moe(x, mask=mask)
    except mb.MoebiusError as error:
        assert str(error).startswith("mask: needs a tensor of truth values"), error
        fix = error.fix
    else:
        raise SystemExit(f"took {mask}")
fixed = eval(fix.removeprefix("mask="), {"torch": torch, "mask": [True] * 5})
assert torch.equal(moe(x, mask=fixed), moe(x))
"""


def test_a_second_input_is_refused():
    """In a process of its own: here annotations are checked before anything else."""
    subprocess.run([sys.executable, "-c", CALLS_OF_USERS], check=True)
