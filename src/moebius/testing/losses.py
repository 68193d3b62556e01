"""The contract of gate losses: a routing → a scalar, and the experts' losses where it compares them."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from moebius.core.loss_needs import LossNeeds, loss_needs
from moebius.core.routing import Routing
from moebius.kit.errors import ArgumentError
from moebius.routers.soft import Soft
from moebius.testing._contract import (
    DTYPES,
    require,
    require_close,
    require_dtype,
    require_refusal,
    require_shape,
    require_true_gradients,
)
from moebius.testing._run import run_checks
from moebius.testing._subject import Subject

# Scores (T, E) and the experts' losses (T, E).
Inputs = tuple[Tensor, Tensor]


def check_loss(loss: Callable[..., Tensor], **arguments: Any) -> None:
    """Hold a gate loss to the contract of the room `losses`: every function of `CHECKS`.

    Its first argument is a `Routing`; what else it reads, it declares by `moebius.needs`. Values of `aux` that it
    declares are probabilities (T, E) here, or what the library's routers give under that name.

    Arguments:
        loss: the function.
        arguments: keywords for it.

    Raises:
        ContractError: the first rule that the loss breaks.

    Example:
        >>> import moebius as mb
        >>> check_loss(mb.losses.importance)
        >>> def count(routing):
        ...     "Not a loss: it has no gradient."
        ...     return (routing.weights > 0.5).to(routing.weights).mean()
        >>> check_loss(count)
        Traceback (most recent call last):
        ...
        moebius.testing._contract.ContractError: losses count: gives a value without a gradient

    Reference: ours.
    """
    run_checks(CHECKS, Subject("losses", loss, arguments))


def gives_a_finite_number_with_finite_gradients(subject: Subject) -> None:
    """The loss is a finite scalar in float32 at least, with finite gradients, for 0 to 12 rows, 1 and 4 experts."""
    for (rows, experts), dtype in product([(12, 4), (1, 4), (12, 1), (0, 4)], DTYPES):
        inputs = make_inputs(rows, experts, dtype)
        value = _value(subject, inputs)
        require_shape(value, (), "a loss")
        require(value.isfinite(), f"gives {value.item()} for {rows} rows and {experts} experts")
        require_dtype(value, torch.promote_types(dtype, torch.float32), "a loss")
        require(value.requires_grad, "gives a value without a gradient")
        _require_finite(subject, inputs, f"for {rows} rows and {experts} experts")


def gives_zero_for_no_rows(subject: Subject) -> None:
    """A routing of no rows costs 0 and can be differentiated: a nested mixture may see none."""
    value = _value(subject, make_inputs(rows=0))
    require(value.item() == 0, f"gives {value.item()} for no rows, needs 0")
    value.backward()


def has_the_gradients_of_finite_differences(subject: Subject) -> None:
    """Gradients of scores and of the experts' losses are those of finite differences."""

    def value(scores: Tensor, expert_losses: Tensor) -> Tensor:
        return _value(subject, (scores, expert_losses))

    require_true_gradients(value, make_inputs(5, 3), "has other gradients than finite differences")


def trains_something(subject: Subject) -> None:
    """A gradient of the scores or of the experts' losses is not 0."""
    size = sum(gradient.abs().sum() for gradient in _gradients(subject, make_inputs()))
    require(size > 1e-6, "has gradients of 0 for scores and for the experts' losses")


def has_finite_gradients_where_probabilities_are_zero(subject: Subject) -> None:
    """Values and gradients are finite where scores are −inf or underflow, and where an expert's loss is infinite."""
    scores = torch.tensor([[0.0, -torch.inf, 1.0], [-torch.inf, -torch.inf, 0.0], [0.0, -2e3, 0.0]]).requires_grad_()
    losses = torch.tensor([[1.0, torch.inf, 2.0], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]).requires_grad_()
    value = _value(subject, (scores, losses))
    require(value.isfinite(), f"gives {value.item()} where probabilities are exactly 0")
    _require_finite(subject, (scores, losses), "where probabilities are exactly 0")


def has_finite_gradients_at_the_smallest_probabilities(subject: Subject) -> None:
    """Gradients are finite where probabilities are the smallest that float32 has."""
    scores = torch.tensor([[0.0, -87.0], [0.0, -103.0], [0.0, -1e4]]).requires_grad_()
    losses = torch.tensor([[1.0, 0.0]] * 3).requires_grad_()
    _require_finite(subject, (scores, losses), "at the smallest probabilities")


def has_a_scale_that_does_not_depend_on_the_batch(subject: Subject) -> None:
    """Rows that come seven times cost what they cost once."""
    inputs = make_inputs()
    repeated = tuple(tensor.repeat(7, 1) for tensor in inputs)
    rule = "has a scale that depends on the number of rows"
    require_close(_value(subject, repeated), _value(subject, inputs), rule, fix="a mean over rows")


def does_not_depend_on_the_order_of_rows_or_experts(subject: Subject) -> None:
    """Rows in another order, or experts, cost the same."""
    inputs = make_inputs()
    for axis, order in (("rows", lambda values: values.flip(0)), ("experts", lambda values: values[:, [2, 0, 3, 1]])):
        permuted = tuple(order(tensor) for tensor in inputs)
        require_close(_value(subject, permuted), _value(subject, inputs), f"depends on the order of {axis}")


def is_smaller_a_step_down_its_gradient(subject: Subject) -> None:
    """A small step against the gradient makes the loss smaller."""
    inputs = make_inputs()
    pairs = zip(inputs, _gradients(subject, inputs), strict=True)
    lower = tuple(tensor.detach() - 0.01 * slope for tensor, slope in pairs)
    require(_value(subject, lower) < _value(subject, inputs), "does not become smaller a step down its gradient")


def refuses_a_routing_without_what_it_declares(subject: Subject) -> None:
    """Without a distribution, or without a value of `aux`, an ArgumentError says so where the loss declares the need.

    A loss that declares nothing is finite without a distribution, or refuses it in the same way.
    """
    needs, inputs = loss_needs(subject.component), make_inputs()
    routing = replace(_routing(subject, inputs, "relu"), distribution=False)
    pattern, rule = "normalisation: softmax", "takes a gate without a distribution"
    try:
        value = _call(subject, routing, inputs)
    except Exception as error:
        if needs.distribution or not declares_needs(subject.component):
            require_refusal(lambda: _call(subject, routing, inputs), pattern, rule)
        else:
            raise error
    else:
        rule = "declares to need a distribution and gives a value without"
        require(not needs.distribution, rule, "needs(distribution=False)")
        require(value.isfinite(), "gives a value that is not finite without a distribution")
    for name in needs.aux:
        without = {key: value for key, value in routing.aux.items() if key != name}
        whole = replace(_routing(subject, inputs, "softmax"), aux=without)
        rule = f"declares to need aux[{name!r}] and does not refuse a routing without"
        require_refusal(lambda: _call(subject, whole, inputs), name, rule)  # noqa: B023


def reads_no_more_than_it_declares(subject: Subject) -> None:
    """A loss that declares its needs by `moebius.needs` works with no other value of `aux`."""
    if declares_needs(subject.component):
        needs, inputs = loss_needs(subject.component), make_inputs()
        routing = _routing(subject, inputs, "softmax")
        declared = {name: value for name, value in routing.aux.items() if name in needs.aux}
        try:
            _call(subject, replace(routing, aux=declared), inputs)
        except LookupError as error:
            require(False, f"reads aux[{error}] and does not declare it", f"needs(aux=({error},))")


def documents_its_formula_and_its_range(subject: Subject) -> None:
    """The docstring has a line "loss = …" and a sentence "Range …"."""
    text = inspect.getdoc(subject.component) or ""
    for part in ("loss = ", "Range "):
        require(part in text, f"has no {part.strip(' =')!r} in its docstring", f"a line that begins with {part!r}")


def make_inputs(rows: int = 12, experts: int = 4, dtype: torch.dtype = torch.float64) -> Inputs:
    """Random scores of a gate and random losses of the experts, both (T, E), which need gradients."""
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(rows, experts, generator=random, dtype=torch.float64)
    losses = torch.rand(rows, experts, generator=random, dtype=torch.float64)
    return scores.to(dtype).requires_grad_(), losses.to(dtype).requires_grad_()


def make_routing(
    scores: Tensor, expert_losses: Tensor, normalisation: str = "softmax", aux: Sequence[str] = ()
) -> Routing:
    """A routing that has all that a loss may read, each value a smooth function of the scores or the losses.

    Arguments:
        scores: (T, E).
        expert_losses: (T, E).
        normalisation: of the gate, "softmax" or "relu".
        aux: further names of values, which are probabilities (T, E).
    """
    routing = Soft(normalisation=normalisation)(scores)
    wide = routing.scores.to(routing.probs.dtype)
    chances, selectors = wide.sigmoid(), torch.stack([wide.softmax(-1), (wide / 2).softmax(-1)], 1)
    # Logits of two classes, for which the losses are those of the first.
    right = -expert_losses.clamp(1e-3, 30)
    outputs = torch.stack([right, torch.log(-torch.expm1(right))], -1)
    values: dict[str, Any] = dict.fromkeys(("load", "open", *aux), chances)
    values = {**values, "selectors": selectors, "reconstruction": chances.sum(-1), "kl": chances.square().sum(-1)}
    return replace(routing, outputs=outputs, aux=values)


def declares_needs(loss: Callable[..., Tensor]) -> bool:
    """Whether `moebius.needs` decorates the loss."""
    return isinstance(getattr(loss, "needs", None), LossNeeds)


def _routing(subject: Subject, inputs: Sequence[Tensor], normalisation: str) -> Routing:
    return make_routing(inputs[0], inputs[1], normalisation, loss_needs(subject.component).aux)


def _call(subject: Subject, routing: Routing, inputs: Sequence[Tensor]) -> Tensor:
    compared = (inputs[1],) if loss_needs(subject.component).expert_losses else ()
    return subject.component(routing, *compared, **subject.arguments)


def _value(subject: Subject, inputs: Sequence[Tensor]) -> Tensor:
    return _call(subject, _routing(subject, inputs, _normalisation(subject)), inputs)


def _normalisation(subject: Subject) -> str:
    """What gate the loss is for: relu where it refuses a distribution, or where that leaves it nothing to change."""
    if loss_needs(subject.component).distribution:
        return "softmax"
    inputs = make_inputs()
    try:
        value = _call(subject, _routing(subject, inputs, "softmax"), inputs)
    except ArgumentError:
        return "relu"
    return "softmax" if not value.requires_grad or _slope(value, inputs) > 1e-6 else "relu"


def _slope(value: Tensor, inputs: Sequence[Tensor]) -> float:
    gradients = torch.autograd.grad(value, inputs, allow_unused=True)
    return sum(gradient.abs().sum().item() for gradient in gradients if gradient is not None)


def _gradients(subject: Subject, inputs: Sequence[Tensor]) -> list[Tensor]:
    gradients = torch.autograd.grad(_value(subject, inputs), inputs, allow_unused=True)
    pairs = zip(inputs, gradients, strict=True)
    return [torch.zeros_like(tensor) if gradient is None else gradient for tensor, gradient in pairs]


def _require_finite(subject: Subject, inputs: Sequence[Tensor], where: str) -> None:
    finite = all(gradient.isfinite().all() for gradient in _gradients(subject, inputs))
    require(finite, f"has gradients that are not finite {where}")


CHECKS = (
    gives_a_finite_number_with_finite_gradients,
    gives_zero_for_no_rows,
    has_the_gradients_of_finite_differences,
    trains_something,
    has_finite_gradients_where_probabilities_are_zero,
    has_finite_gradients_at_the_smallest_probabilities,
    has_a_scale_that_does_not_depend_on_the_batch,
    does_not_depend_on_the_order_of_rows_or_experts,
    is_smaller_a_step_down_its_gradient,
    refuses_a_routing_without_what_it_declares,
    reads_no_more_than_it_declares,
    documents_its_formula_and_its_range,
)
