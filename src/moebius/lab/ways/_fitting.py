"""Fitting what mixes outputs that are computed already."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from moebius.lab.data.split import Split
from moebius.lab.remedies._case import Case
from moebius.lab.training.call_model import ModelCall
from moebius.lab.ways._pool import Pool

# Numbers that a fit of all rows at once holds in memory at most; of more rows some are drawn.
MOST_NUMBERS = 2**24
Form = TypeVar("Form")


class Column(nn.Module):
    """One network's outputs out of those of all, (T, E, …) → (T, …): its place in a mixture that is being fitted.

    Arguments:
        number: of the network.
    """

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of this network."""
        return x[:, self.number]


def columns(count: int) -> list[nn.Module]:
    """The places of so many networks."""
    return [Column(number) for number in range(count)]


def column_case(pool: Pool, model: nn.Module) -> Case:
    """The case of a mixture of columns, whose gate reads the rows and whose experts read the outputs."""
    inputs = {"gate": pool.rows.images, "experts": pool.outputs}
    rows = Split(inputs, pool.rows.labels, pool.rows.domains, pool.rows.scale)
    return Case(ModelCall(model), pool.task.for_model(model), "gate", rows, seed=pool.seed)


def drawn(pool: Pool) -> Pool:
    """The pool, or as many of its rows as a fit of all rows at once takes."""
    most = max(MOST_NUMBERS // max(pool.outputs[0].numel(), 1), 1)
    if len(pool) <= most:
        return pool
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(pool.seed))[:most]
    return pool.take(order.to(pool.outputs.device))


def minimise(loss: Callable[[], Tensor], parameters: Sequence[Tensor], steps: int = 100) -> None:
    """Minimise a smooth loss of few parameters, in place, by L-BFGS.

    Where the loss stops being finite, the parameters are left at the last values with which it was.
    """
    optimizer = torch.optim.LBFGS(parameters, max_iter=steps, line_search_fn="strong_wolfe")
    best, kept = math.inf, [parameter.detach().clone() for parameter in parameters]

    def closure() -> Tensor:
        nonlocal best, kept
        optimizer.zero_grad()
        value = loss()
        if float(value.detach()) < best:
            best, kept = float(value.detach()), [parameter.detach().clone() for parameter in parameters]
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.copy_(value)


def mean_loss(pool: Pool, model: nn.Module) -> Tensor:
    """The loss of a mixture of columns on the rows of a pool, with gradients."""
    rows = pool.outputs.flatten(1)[:, :1]
    output = model({"gate": rows, "experts": pool.outputs})
    return pool.task.for_model(model).row_losses(output, pool.rows.labels).mean()


def choose(pool: Pool, forms: Mapping[str, Form], fit: Callable[[Pool, Form], nn.Module]) -> str:
    """The form with the least loss on rows that it was not fitted to; of equals the first.

    Arguments:
        pool: of all rows.
        forms: name → what `fit` takes.
        fit: (pool, form) → a mixture of columns.
    """
    if len(forms) == 1:
        return next(iter(forms))
    fitted, held_out = pool.halves()
    losses = {}
    for name, form in forms.items():
        with torch.no_grad():
            value = float(mean_loss(held_out, fit(fitted, form)))
        losses[name] = value if math.isfinite(value) else math.inf
    return min(losses, key=lambda name: losses[name])
