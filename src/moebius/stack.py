"""`Stack`: equal experts that share stacked parameters."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from moebius.arguments import positive
from moebius.equal import unlike
from moebius.errors import ArgumentError
from moebius.routing import Router


class Stack(nn.Module):
    """E equal experts of any architecture, whose parameters lie one on another: each is one tensor (E, …).

    For the rest of the world it is the list of its experts: it has their number as length, gives them one by one, and
    saves one key for each expert's tensor (`3.inner.weight`), as an `nn.ModuleList` of them does, so that what one
    saved the other loads. An optimizer sees a few large tensors instead of many small ones, and the executions give
    them to one product for all experts, without laying them together in every step.

    An expert taken from it (`stack[3]`, or in a loop) is a module of the experts' class whose parameters are views.
    It computes, and gradients reach the stacked parameters; to keep or to alter one, take `stack.unstacked()`. What is
    set for one is set for all: modes, frozen parts and hooks are those of `stack.stacked`.

    Arguments:
        experts: at least one, equal but for the values of their parameters. Their values are copied.

    Raises:
        ArgumentError: no experts, unlike ones, ones that share a part, or ones that hold a mixture.

    Example:
        >>> stack = Stack([nn.Linear(4, 3) for _ in range(5)])
        >>> {name: tuple(parameter.shape) for name, parameter in stack.named_parameters()}
        {'stacked.weight': (5, 3, 4), 'stacked.bias': (5, 3)}
        >>> stack[2](torch.zeros(7, 4)).shape, list(stack.state_dict())[:2]
        (torch.Size([7, 3]), ['0.weight', '0.bias'])

    Reference: ours; torch.func's model ensembling.
    """

    def __init__(self, experts: Sequence[nn.Module]):
        super().__init__()
        experts = list(experts)
        if not experts:
            raise ArgumentError("experts", "needs at least one expert", experts)
        _check(experts)
        self._begin(experts[0], len(experts))
        for number, expert in enumerate(experts):
            self._put(number, expert)

    @classmethod
    def of(cls, make: Callable[[], nn.Module], count: int) -> "Stack":
        """A stack of `count` experts, made one after another, so that they are in memory once only.

        Raises:
            ArgumentError: as for a list of them, or a count below 1.

        Example:
            >>> len(Stack.of(lambda: nn.Linear(4, 3), 5))
            5
        """
        positive("count", count)
        stack = cls.__new__(cls)
        nn.Module.__init__(stack)
        first = make()
        stack._begin(first, count)
        stack._put(0, first)
        for number in range(1, count):
            expert = make()
            _check([first, expert])
            stack._put(number, expert)
        return stack

    def _begin(self, first: nn.Module, count: int) -> None:
        _check([first])
        self.count = count
        rooms = {id(tensor): _like(tensor, tensor.new_empty(count, *tensor.shape)) for *_, tensor in _tensors(first)}
        # Of the structure of one expert, with tensors that hold those of all.
        self.stacked = copy.deepcopy(first, rooms)
        self.register_state_dict_post_hook(_unstack)
        self.register_load_state_dict_pre_hook(_stack)

    @torch.no_grad()
    def _put(self, number: int, expert: nn.Module) -> None:
        pairs = zip(_tensors(self.stacked), _tensors(expert), strict=True)
        for (_, _, _, whole), (_, _, _, tensor) in pairs:
            whole[number] = tensor

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> nn.Module:
        if number not in range(-self.count, self.count):
            raise IndexError(number)
        return _view(self.stacked, [tensor[number] for _, _, _, tensor in _tensors(self.stacked)])

    def __iter__(self) -> Iterator[nn.Module]:
        return self.only(range(self.count))

    def only(self, numbers: Iterable[int]) -> Iterator[nn.Module]:
        """The experts with these numbers."""
        # One unbind for all: the backward of E times t[e] would write E gradients of the size of all experts.
        columns = [tensor.unbind() for _, _, _, tensor in _tensors(self.stacked)]
        for number in numbers:
            yield _view(self.stacked, [column[number] for column in columns])

    def forward(self, *inputs: Any) -> Any:
        """A stack is called by an execution, one expert or all at once, never by itself."""
        raise TypeError("a stack holds a mixture's experts: mb.Mixture(gate, stack) calls them")

    def unstacked(self) -> list[nn.Module]:
        """The experts as modules of their own, with copies of their parameters."""
        tensors = [tensor for *_, tensor in _tensors(self.stacked)]
        return [
            copy.deepcopy(self.stacked, {id(whole): _like(whole, whole.detach()[number].clone()) for whole in tensors})
            for number in range(self.count)
        ]

    def extra_repr(self) -> str:
        """How many."""
        return f"count={self.count}"


def holders(model: nn.Module) -> dict[str, tuple[Tensor, int | None]]:
    """Name in the state dict → the tensor that holds its values, and the expert's number where a stack's holds all.

    Example:
        >>> [number for _, number in holders(Stack([nn.Linear(4, 3, bias=False) for _ in range(2)])).values()]
        [0, 1]
    """
    held: dict[str, tuple[Tensor, int | None]] = {
        name: (tensor, None) for name, tensor in model.state_dict(keep_vars=True).items()
    }
    for path, part in model.named_modules(remove_duplicate=False):
        if isinstance(part, Stack):
            before = f"{path}." if path else ""
            for name, whole in part.stacked.state_dict(keep_vars=True).items():
                held |= {f"{before}{number}.{name}": (whole, number) for number in range(len(part))}
    return held


def stackable(experts: Sequence[nn.Module]) -> str | None:
    """Why these experts cannot share stacked parameters, as the end of a sentence; None where they can."""
    for part in (part for expert in experts for part in expert.modules()):
        if isinstance(part, Router | Stack):
            return f"{type(part).__name__} inside is a part of a mixture, which is called and recorded by itself"
    why = unlike(experts)
    if why is not None:
        return why
    tensors = [{id(tensor): tensor for *_, tensor in _tensors(expert)} for expert in experts]
    if len(set().union(*tensors)) < sum(map(len, tensors)):
        return "they share a part, and each would get its own"
    trained = [[tensor.requires_grad for tensor in of_one.values()] for of_one in tensors]
    if any(one != trained[0] for one in trained):
        return "in some of them parameters are frozen that are not in others"
    return None


def _check(experts: Sequence[nn.Module]) -> None:
    why = stackable(experts)
    if why is not None:
        raise ArgumentError("experts", f"a stack needs equal experts: {why}", len(experts), "a list of them")


def _like(tensor: Tensor, values: Tensor) -> Tensor:
    return nn.Parameter(values, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values


def _tensors(module: nn.Module) -> list[tuple[nn.Module, str, str, Tensor]]:
    """Every parameter and buffer with the part, the table and the name that hold it, in the order of the state dict."""
    return [
        (part, kind, name, tensor)
        for part in module.modules()
        for kind in ("_parameters", "_buffers")
        for name, tensor in getattr(part, kind).items()
        if tensor is not None
    ]


def _view(module: nn.Module, tensors: Sequence[Tensor]) -> nn.Module:
    """The module with other tensors: its parts are copies that share all but these, and no memory is taken."""
    left = iter(tensors)
    made: dict[int, nn.Module] = {}

    def copied(part: nn.Module) -> nn.Module:
        if id(part) in made:
            return made[id(part)]
        new = made[id(part)] = object.__new__(type(part))
        # Past the modules' own way to set attributes, which takes its time.
        own = vars(new)
        own.update(vars(part))
        for kind in ("_parameters", "_buffers"):
            own[kind] = {name: None if value is None else next(left) for name, value in own[kind].items()}
        own["_modules"] = {name: inner and copied(inner) for name, inner in own["_modules"].items()}
        return new

    return copied(module)


def _unstack(stack: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """In a state dict: each tensor of all experts becomes one of each, expert after expert."""
    inner = f"{prefix}stacked."
    whole = {key: state[key] for key in state if key.startswith(inner) and isinstance(state[key], Tensor)}
    columns = {key.removeprefix(inner): state.pop(key).unbind() for key in whole}
    for number in range(len(stack)):  # pyright: ignore[reportArgumentType]
        for name, column in columns.items():
            state[f"{prefix}{number}.{name}"] = column[number]


def _stack(
    stack: nn.Module, state: dict[str, Any], prefix: str, metadata: Any, strict: bool, missing: list[str], *rest: Any
) -> None:
    """The reverse. Of what is missing or has another shape, torch is told under its own name, and the rest is taken."""
    errors = rest[-1]
    for name, whole in stack.stacked.state_dict().items():  # type: ignore[union-attr]
        if not isinstance(whole, Tensor) or f"{prefix}stacked.{name}" in state:
            continue
        keys = [f"{prefix}{number}.{name}" for number in range(len(stack))]  # pyright: ignore[reportArgumentType]
        missing += [key for key in keys if key not in state]
        given = [state.pop(key, None) for key in keys]
        for key, tensor in zip(keys, given, strict=True):
            if tensor is not None and tensor.shape != whole.shape[1:]:
                shapes = f"{tuple(tensor.shape)} in the checkpoint and {tuple(whole.shape[1:])} in the model"
                errors.append(f"size mismatch for {key}: the shape is {shapes}.")
        fits = [tensor is not None and tensor.shape == whole.shape[1:] for tensor in given]
        if not all(fits):
            given = [new.to(old) if fit else old for new, fit, old in zip(given, fits, whole, strict=True)]
        state[f"{prefix}stacked.{name}"] = torch.stack(given)
