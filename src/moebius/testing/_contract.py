"""What checks are made of: a rule that holds, or a `ContractError` that names the component and the rule."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from moebius.kit.errors import ArgumentError, MoebiusError

DTYPES = (torch.float32, torch.bfloat16, torch.float64)


class ContractError(MoebiusError, AssertionError):
    """A component breaks a rule of its room; the message names the component, the rule and the value.

    It is an AssertionError, so that test tools count it as a failure and not as an error of the test.

    Arguments:
        message: the component, the rule and the value that breaks it.
        fix: what to change in the component, if there is one thing to change.

    Example:
        >>> print(ContractError("gates first: loses rows", "return one row of scores for each row"))
        gates first: loses rows
          fix: return one row of scores for each row
    """


def require(condition: bool | Tensor, rule: str, fix: str | None = None) -> None:
    """Raise a `ContractError` unless `condition` holds.

    Arguments:
        condition: a truth value, or a tensor of a single one.
        rule: what is wrong, as a clause whose subject is the component ("loses rows").
        fix: what to change in the component.
    """
    if not bool(condition):
        raise ContractError(rule, fix)


def require_close(
    values: Any,
    expected: Any,
    rule: str,
    rtol: float | int | None = None,
    atol: float | int | None = None,
    fix: str | None = None,
) -> None:
    """Raise unless two tensors, or two collections of tensors, are close in the sense of `torch.testing`."""
    try:
        torch.testing.assert_close(values, expected, rtol=rtol, atol=atol)
    except AssertionError as error:
        raise ContractError(f"{rule}. {error}", fix) from None


def require_equal(values: Tensor, expected: Tensor, rule: str, fix: str | None = None) -> None:
    """Raise unless two tensors are equal in each bit."""
    if not torch.equal(values, expected):
        different = "" if values.shape == expected.shape else f": shapes {_shape(values)} and {_shape(expected)}"
        raise ContractError(f"{rule}{different}", fix)


def require_shape(values: Any, shape: Sequence[int], noun: str) -> None:
    """Raise unless `values`, which the message calls `noun`, is a tensor of this shape."""
    require(isinstance(values, Tensor), f"gives a {type(values).__name__} in the place of {noun}")
    require(_shape(values) == tuple(shape), f"gives {noun} of shape {_shape(values)}, needs {tuple(shape)}")


def require_dtype(values: Tensor, dtype: torch.dtype, noun: str) -> None:
    """Raise unless `values`, which the message calls `noun`, has this number format."""
    require(values.dtype == dtype, f"gives {noun} in {values.dtype}, needs {dtype}")


def require_refusal(call: Callable[[], Any], pattern: str, rule: str, fix: str | None = None) -> None:
    """Raise unless `call` raises an ArgumentError whose text has `pattern`.

    Arguments:
        call: makes or calls the component with something impossible.
        pattern: a regular expression.
        rule: what is wrong where it does not, as a clause ("takes experts=0").
        fix: what to change in the component.
    """
    try:
        call()
    except ArgumentError as error:
        if re.search(pattern, str(error), re.DOTALL) is None:
            raise ContractError(f"{rule}: its ArgumentError says {str(error)!r}, needs {pattern!r}", fix) from error
    except Exception as error:
        raise ContractError(f"{rule}: it raises {type(error).__name__}, needs a moebius.ArgumentError", fix) from error
    else:
        raise ContractError(f"{rule} and raises nothing", fix)


# Finite differences of so many numbers one by one; of more at once.
_MOST_NUMBERS = 300


def require_true_gradients(function: Callable[..., Any], inputs: Any, rule: str) -> None:
    """Raise unless gradients are those of finite differences, in float64; of many numbers, in a random direction."""
    tensors = inputs if isinstance(inputs, Sequence) else [inputs]
    fast = sum(tensor.numel() for tensor in tensors if isinstance(tensor, Tensor)) > _MOST_NUMBERS
    try:
        torch.autograd.gradcheck(function, inputs, fast_mode=fast)
    except RuntimeError as error:  # GradcheckError is one
        raise ContractError(f"{rule}. {error}") from None


def require_gradients(part: nn.Module, further: Sequence[tuple[str, Tensor]] = ()) -> None:
    """Raise unless every parameter of `part`, and every tensor of `further`, has a gradient that is not 0."""
    for name, tensor in [*part.named_parameters(), *further]:
        gradient = tensor.grad
        if gradient is None:
            raise ContractError(f"passes no gradient to {name}")
        require(gradient.abs().sum() > 0, f"passes a gradient of 0 to {name}")


def copy_state(part: nn.Module) -> dict[str, Tensor]:
    """Clones of the tensors of a module's state dict."""
    return {name: value.clone() for name, value in part.state_dict().items()}


def require_same_state(part: nn.Module, before: dict[str, Tensor], rule: str) -> None:
    """Raise unless the state dict's tensors are those of `before`."""
    for name, value in part.state_dict().items():
        require_equal(value, before[name], f"{rule}: {name}")


def require_repeatable(part: Callable[[Tensor], Tensor], x: Tensor, rows: str) -> None:
    """Raise unless two calls with the same input, which the message calls `rows`, give the same and leave it alone."""
    before = x.clone()
    first, second = part(x), part(x)
    require_equal(x, before, "changes its input in place")
    require_equal(first, second, f"gives other outputs for the same {rows} in eval", "noise only while self.training")


def require_kept_state(part: nn.Module, call: Callable[[], Any], rows: str) -> None:
    """Raise unless a call without any `rows` leaves every tensor of the state dict as it was."""
    before = copy_state(part)
    call()
    require_same_state(part, before, f"changes its state in a batch without {rows}")


def require_loadable(
    part: nn.Module, second: nn.Module, x: Tensor, run: Callable[[nn.Module, Tensor], Tensor] = nn.Module.__call__
) -> None:
    """Raise unless `second` gives other outputs than `part` until it loads its state dict, and then the same.

    Arguments:
        part, second: two components of the same arguments.
        x: their input.
        run: (component, x) → its output.
    """
    rule = "gives the same outputs whatever torch's generator draws for its parameters"
    require(not torch.equal(run(part, x), run(second, x)), rule, "initialise parameters by torch's generator")
    second.load_state_dict(part.state_dict())
    rule = "gives other outputs once its state dict is loaded"
    require_equal(run(second, x), run(part, x), rule, "register what outputs depend on")


def _shape(values: Tensor) -> tuple[int, ...]:
    return tuple(values.shape)
