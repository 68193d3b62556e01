"""The contract of gates: rows → one score for each row and expert.

A gate that declares `by_position = True` scores each pixel of images, (T, E, height, width).
"""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from moebius.core.expert_outputs import EXPERT_OUTPUTS
from moebius.core.row_context import call_with_context, context, takes_context
from moebius.testing._contract import (
    DTYPES,
    require,
    require_close,
    require_dtype,
    require_equal,
    require_gradients,
    require_kept_state,
    require_refusal,
    require_shape,
    require_true_gradients,
)
from moebius.testing._run import run_checks
from moebius.testing._subject import Sample, Subject

# A parameter with more numbers than this is left out of finite differences.
_SMALL = 256


def check_gate(
    gate: Callable[..., nn.Module],
    x: Tensor | None = None,
    context: Mapping[str, Tensor] | None = None,
    experts: int = 3,
    **arguments: Any,
) -> None:
    """Hold a gate to the contract of the room `gates`: every function of `CHECKS`.

    Arguments:
        gate: the class, or a function that makes a new gate.
        x: rows to score, (N, …), N ≥ 1; random grey images of 8×8 pixels unless given.
        context: side information of these rows, for a gate whose `forward` has a parameter `context`.
        experts: E.
        arguments: for the constructor; facts such as `features`, `size` and `experts` follow from the rows.

    Raises:
        ContractError: the first rule that the gate breaks.

    Example:
        >>> class Brightness(nn.Module):
        ...     def forward(self, x):
        ...         mean = x.flatten(1).mean(1)
        ...         return torch.stack([mean, 1 - mean, mean - 1], 1)
        >>> check_gate(Brightness)
        >>> check_gate(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))
        Traceback (most recent call last):
        ...
        moebius.testing._contract.ContractError: gates <lambda>: gives scores of shape (7, 2), needs (7, 3)

    Reference: ours.
    """
    run_checks(CHECKS, Subject("gates", gate, arguments, Sample(x, context, experts)))


def scores_every_row_for_every_expert(subject: Subject) -> None:
    """Scores are (T, E), in the precision of the rows and never NaN, for 7 rows, one and none."""
    for count, dtype in product((7, 1, 0), DTYPES):
        scores, _ = _score(subject.make().to(dtype), subject, count, dtype)
        require_shape(scores, (count, subject.sample.experts, *_positions(subject)), "scores")
        require_dtype(scores, dtype, "scores")
        require(not scores.isnan().any(), "gives scores that are NaN")


def scores_a_single_expert(subject: Subject) -> None:
    """A gate for one expert scores (T, 1), or (T, 1, …); for gates whose number of experts is an argument."""
    if subject.takes("experts"):
        gate = subject.make(experts=1, domains=1)
        side = {name: torch.zeros_like(value) for name, value in subject.sample.side_information(4).items()}
        side |= {EXPERT_OUTPUTS: side[EXPERT_OUTPUTS][:, :1]} if EXPERT_OUTPUTS in side else {}
        scores, _ = score_rows(gate, subject.sample.rows(4), side)
        require_shape(scores, (4, 1, *_positions(subject)), "scores of a single expert")


def scores_the_same_in_bfloat16(subject: Subject) -> None:
    """Scores in bf16 are those in float32 but for rounding, 5 %."""
    exact, _ = _score(subject.make().eval(), subject, 16)
    rounded, _ = _score(subject.make().eval().bfloat16(), subject, 16, torch.bfloat16)
    require_close(rounded.float(), exact, "gives other scores in bf16 than in float32", rtol=0.05, atol=0.05)


def permuting_rows_permutes_scores(subject: Subject) -> None:
    """A row's scores do not depend on its place."""
    gate, x, side = subject.make().eval(), subject.sample.rows(9), subject.sample.side_information(9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    permuted, _ = score_rows(gate, x[order], {name: value[order] for name, value in side.items()})
    require_close(permuted, score_rows(gate, x, side)[0][order], "scores rows by their place: permuted rows differ")


def scores_the_same_twice_in_eval(subject: Subject) -> None:
    """In eval the same rows have the same scores."""
    gate = subject.make().eval()
    first, second = (_score(gate, subject, 5)[0] for _ in range(2))
    require_equal(first, second, "gives other scores for the same rows in eval", "noise only while self.training")


def gives_values_beside_scores_for_each_row(subject: Subject) -> None:
    """What a gate with `gives_aux` gives besides is (T, …), finite and in float32 at least."""
    for count, dtype in ((7, torch.float32), (1, torch.bfloat16), (0, torch.float64)):
        for name, value in _score(subject.make().to(dtype), subject, count, dtype)[1].items():
            require(len(value) == count, f"gives {len(value)} values of {name!r} for {count} rows")
            require_dtype(value, torch.promote_types(dtype, torch.float32), name)
            require(value.isfinite().all(), f"gives values of {name!r} that are not finite")


def keeps_its_state_where_there_are_no_rows(subject: Subject) -> None:
    """A batch without rows changes no parameter and no buffer."""
    gate = subject.make()
    require_kept_state(gate, lambda: _score(gate, subject, 0), "rows")


def leaves_its_input_as_it_was(subject: Subject) -> None:
    """The rows are not changed in place."""
    gate, x = subject.make(), subject.sample.rows(5)
    before = x.clone()
    score_rows(gate, x, subject.sample.side_information(5))
    require_equal(x, before, "changes its input in place")


def passes_a_gradient_to_every_parameter(subject: Subject) -> None:
    """Scores, and the values beside them, reach each parameter; without parameters they need no gradient."""
    gate = subject.make()
    scores, aux = _score(gate, subject, 32)
    trained = any(True for _ in gate.parameters())
    require(scores.requires_grad == trained, "gives scores without a gradient and has parameters")
    if trained:
        (scores.logsumexp(-1).sum() + sum(value.sum() for value in aux.values())).backward()
    require_gradients(gate)


def has_the_gradients_of_finite_differences(subject: Subject) -> None:
    """Gradients of parameters with at most 256 numbers are those of finite differences, in float64."""
    gate = subject.make().double().eval()
    parameters = dict(gate.named_parameters())
    small = {name: p for name, p in parameters.items() if p.numel() <= _SMALL}
    if not small:
        require(not parameters, f"has no parameter of at most {_SMALL} numbers to check", "smaller arguments")
        return
    x, side = subject.sample.rows(2, torch.float64), subject.sample.side_information(2)
    keywords = {"context": side} if takes_context(type(gate)) else {}

    def scores_of(*values: Tensor) -> Any:
        every = {**parameters, **dict(zip(small, values, strict=True))}
        scores = torch.func.functional_call(gate, every, (x,), keywords)
        return (scores[0], *scores[1].values()) if isinstance(scores, tuple) else scores

    inputs = [parameter.detach().requires_grad_() for parameter in small.values()]
    require_true_gradients(scores_of, inputs, "has other gradients than finite differences")


def scores_the_same_once_loaded(subject: Subject) -> None:
    """A second gate that loads the state dict gives the same scores."""
    gate, loaded = subject.make().eval(), subject.make().eval()
    for parameter in loaded.parameters():
        nn.init.zeros_(parameter)
    loaded.load_state_dict(gate.state_dict())
    first, second = (_score(part, subject, 4)[0] for part in (gate, loaded))
    require_equal(second, first, "scores differently once its state dict is loaded", "register what scores depend on")


def refuses_impossible_facts_by_name(subject: Subject) -> None:
    """A fact of 0 or −1, such as `experts=0`, is refused by an ArgumentError that begins with its name."""
    for name, bad in product(subject.facts, (0, -1)):
        fix = f'raise moebius.ArgumentError({name!r}, "needs a whole number of at least 1", {name})'
        pattern = f"^({name}|experts): "
        require_refusal(lambda: subject.make(**{name: bad}), pattern, f"takes {name}={bad}", fix)  # noqa: B023


def score_rows(gate: nn.Module, x: Tensor, side: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Scores of rows with their side information, and what the gate gives beside them."""
    with context(**side):
        scores = call_with_context(gate, x)
    return scores if getattr(gate, "gives_aux", False) else (scores, {})


def _positions(subject: Subject) -> tuple[int, ...]:
    """The positions that a gate scores; none for one that scores rows."""
    by_position = getattr(subject.component, "by_position", False)
    return tuple(subject.sample.rows(1).shape[2:]) if by_position else ()


def _score(
    gate: nn.Module, subject: Subject, count: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Mapping[str, Tensor]]:
    return score_rows(gate, subject.sample.rows(count, dtype), subject.sample.side_information(count))


CHECKS = (
    scores_every_row_for_every_expert,
    scores_a_single_expert,
    scores_the_same_in_bfloat16,
    permuting_rows_permutes_scores,
    scores_the_same_twice_in_eval,
    gives_values_beside_scores_for_each_row,
    keeps_its_state_where_there_are_no_rows,
    leaves_its_input_as_it_was,
    passes_a_gradient_to_every_parameter,
    has_the_gradients_of_finite_differences,
    scores_the_same_once_loaded,
    refuses_impossible_facts_by_name,
)
