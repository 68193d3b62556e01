"""What a forward can tell about the activation checkpoint around it."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from moebius.core.activation_checkpointing import is_replay, loses_graph, will_be_replayed


class AnsweringLinear(nn.Linear):
    """Keeps what each forward can tell."""

    def __init__(self):
        super().__init__(3, 3)
        self.results = []

    def forward(self, x):
        self.results.append((is_replay(), will_be_replayed(), loses_graph()))
        return super().forward(x)


def collect_answers(run, **options):
    linear = AnsweringLinear()
    y = run(linear, torch.ones(2, 3, **options))
    if y.requires_grad:
        y.sum().backward()
    return linear.results


def test_outside_of_checkpoints():
    assert collect_answers(lambda block, x: block(x)) == [(False, False, False)]
    with torch.no_grad():
        assert collect_answers(lambda block, x: block(x)) == [(False, False, False)]


def test_not_reentrant():
    run = lambda block, x: checkpoint(block, x, use_reentrant=False)  # noqa: E731
    assert collect_answers(run) == [(False, False, False), (True, False, False)]


def test_reentrant():
    run = lambda block, x: checkpoint(block, x, use_reentrant=True)  # noqa: E731
    assert collect_answers(run, requires_grad=True) == [(False, True, True), (True, False, False)]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
def test_reentrant_where_no_input_wants_gradients():
    """It is never repeated, so that nothing in it is trained; a loss of its records still loses its gradient."""
    run = lambda block, x: checkpoint(block, x, use_reentrant=True)  # noqa: E731
    assert collect_answers(run) == [(False, False, True)]


def test_reentrant_without_gradients():
    run = lambda block, x: checkpoint(block, x, use_reentrant=True)  # noqa: E731
    with torch.no_grad():
        assert collect_answers(run, requires_grad=True) == [(False, False, False)]
    with torch.inference_mode():
        assert collect_answers(lambda block, x: block(x)) == [(False, False, False)]


def test_a_checkpoint_inside_a_checkpoint_is_a_first_time_only_once():
    def run(block, x):
        return checkpoint(lambda x: checkpoint(block, x, use_reentrant=True), x, use_reentrant=True)

    first, *replays = collect_answers(run, requires_grad=True)
    assert first == (False, True, True)
    assert len(replays) == 2
    assert all(replayed for replayed, _, _ in replays)


def test_a_function_of_ones_own_that_repeats_its_forward():
    class RepeatingFunction(torch.autograd.Function):
        @staticmethod
        def forward(ctx, block, x):
            ctx.block = block
            ctx.save_for_backward(x)
            return block(x)

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                ctx.block(x).backward(gradient)
            return None, x.grad

    results = collect_answers(lambda block, x: RepeatingFunction.apply(block, x), requires_grad=True)
    assert results == [(False, True, True), (True, False, False)]
