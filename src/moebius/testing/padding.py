"""A batch with padding, and the same batch without it: any model of rows and a mask is held to giving the same."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from moebius.core.loss_needs import loss_needs
from moebius.core.recording import record
from moebius.core.routing import Routing, step_routers
from moebius.core.row_context import context
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find, kinds
from moebius.testing._contract import ContractError, require, require_close, require_equal

# Padding at the end, at the beginning and in between.
MASK = torch.tensor(
    [[True, True, True, True, True], [True, False, True, False, False], [False, False, True, True, True]]
)
_CLASSES = 3


def make_tokens() -> Tensor:
    """Sequences of tokens, (3, 5, 4), in float64."""
    return torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def compare_masked(
    model: nn.Module, x: Tensor, mask: Tensor, way: str = "argument", outputs: bool = False, seed: int = 3
) -> int:
    """Hold a model to giving for a masked batch what it gives for the batch without padding.

    Outputs, records, gate losses, gradients and state are compared; where there is padding the input is NaN and
    infinite, and the output has to be 0.

    Arguments:
        model: takes rows (…, D) with any batch axes, and a keyword `mask`.
        x: rows, in float64.
        mask: True for real rows, with the batch axes of x or the first of these.
        way: "argument" for `model(x, mask=mask)`, "block" for `with moebius.context(mask=mask)`.
        outputs: whether all experts' outputs are recorded.
        seed: of the noise in both calls.

    Returns: how many values of losses were compared.

    Raises:
        ContractError: the results differ.

    Example:
        >>> import moebius as mb
        >>> moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 3), nn.Linear(4, 3)], mb.routers.TopK(1)).double()
        >>> compare_masked(moe, make_tokens(), MASK) > 3
        True

    Reference: ours.
    """
    twin = copy.deepcopy(model)
    padded, alone = poison(x, mask).requires_grad_(), x[mask].requires_grad_()
    axes = mask.shape if mask.ndim > 1 or x.ndim == 2 else x.shape[:2]
    places = torch.arange(prod(axes)).view(axes)[mask].flatten()
    labels = torch.arange(prod(axes)) % _CLASSES
    torch.manual_seed(seed)
    with record(model, outputs=outputs) as log:
        y = _run_masked(model, padded, mask, way)
    torch.manual_seed(seed)
    with record(twin, outputs=outputs) as expected_log:
        expected = twin(alone)
    require(y.shape[: x.ndim - 1] == x.shape[:-1], f"gives an output of shape {tuple(y.shape)} for {tuple(x.shape)}")
    require_equal(y[~mask], torch.zeros_like(y[~mask]), "gives padding an output that is not 0")
    _require_near(y[mask], expected, "outputs")
    _compare_records(log, expected_log, places)
    values, expected_values = _losses(log, labels), _losses(expected_log, labels[places])
    _require_near(values, expected_values, "gate losses")
    *of_parameters, of_x = _gradients(_objective(y, values), model, padded)
    *expected_gradients, of_alone = _gradients(_objective(expected, expected_values), twin, alone)
    _require_near(of_parameters, expected_gradients, "gradients of parameters")
    _require_near(of_x[mask], of_alone, "gradients of rows")
    require_equal(of_x[~mask], torch.zeros_like(of_x[~mask]), "passes padding a gradient that is not 0")
    for part in (model, twin):
        step_routers(part)
    _require_near(model.state_dict(), twin.state_dict(), "tensors of its state dict")
    return len(values)


def poison(x: Tensor, mask: Tensor) -> Tensor:
    """The same real rows, and NaN and infinity where there is padding."""
    values = torch.where(torch.arange(x.shape[-1]) % 2 == 0, torch.nan, torch.inf).to(x)
    return torch.where(mask.view(*mask.shape, *[1] * (x.ndim - mask.ndim)), x, values)


def _run_masked(model: nn.Module, x: Tensor, mask: Tensor, way: str) -> Tensor:
    if way == "argument":
        return model(x, mask=mask)
    with context(mask=mask):
        return model(x)


def _losses(log: Mapping[str, Sequence[Routing]], labels: Tensor) -> dict[tuple[str, int, str], Tensor]:
    """Every loss of every recorded routing that it can be taken of, by path, call and kind."""
    values = {}
    for path, routings in log.items():
        for call, routing in enumerate(routings):
            for kind in kinds("losses"):
                loss = find("losses", kind)
                compares = loss_needs(loss).expert_losses
                if compares and routing.outputs is None:
                    continue
                try:
                    values[path, call, kind] = loss(routing, *((_expert_losses(routing, labels),) if compares else ()))
                except ArgumentError:  # the router gives no distribution, or not what the loss is of
                    continue
    return values


def _expert_losses(routing: Routing, labels: Tensor) -> Tensor:
    """Each expert's cross-entropy of each row, (T, E)."""
    assert routing.outputs is not None
    labels = labels if routing.rows is None else labels[routing.rows]
    labels = labels.unsqueeze(1).expand(routing.outputs.shape[:2])
    return F.cross_entropy(routing.outputs.transpose(1, 2), labels, reduction="none")


def _gradients(objective: Tensor, model: nn.Module, x: Tensor) -> list[Tensor]:
    """Of every parameter and of the input."""
    tensors = [*model.parameters(), x]
    if not objective.requires_grad:
        return [torch.zeros_like(tensor) for tensor in tensors]
    gradients = torch.autograd.grad(objective, tensors, allow_unused=True)
    pairs = zip(tensors, gradients, strict=True)
    return [torch.zeros_like(tensor) if gradient is None else gradient for tensor, gradient in pairs]


def _objective(y: Tensor, values: Mapping[Any, Tensor]) -> Tensor:
    scale = torch.linspace(0.5, 1.5, y.shape[-1], dtype=y.dtype)
    return (y * scale).square().sum() + sum((place + 1) * value for place, value in enumerate(values.values()))


def _require_near(values: Any, expected: Any, noun: str) -> None:
    require_close(values, expected, f"with a mask gives other {noun} than without padding", rtol=1e-6, atol=1e-6)


def _compare_records(
    log: Mapping[str, Sequence[Routing]], expected: Mapping[str, Sequence[Routing]], places: Tensor
) -> None:
    """Equal routings, whose rows stand in the whole batch where `places` says."""
    require(list(log) == list(expected), f"records the mixtures {list(log)} with a mask, {list(expected)} without")
    for path in log:
        for routing, alone in zip(log[path], expected[path], strict=True):
            rows = places if alone.rows is None else places[alone.rows]
            if routing.rows is None:
                raise ContractError("records a masked routing without the places of its rows")
            require_equal(routing.rows, rows, "records other places of rows than those of the mask")
            leaves, spec = pytree.tree_flatten(replace(routing, rows=None))
            other_leaves, other_spec = pytree.tree_flatten(replace(alone, rows=None))
            require(spec == other_spec, "records another routing with a mask than without padding")
            _require_near(leaves, other_leaves, "recorded tensors")
