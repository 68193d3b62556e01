"""`Stack`: equal experts that share stacked parameters."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, overload

import torch
from torch import Tensor, nn

from moebius.core.equality import difference, has_hooks
from moebius.core.expert_views import ExpertViews
from moebius.core.module_views import (
    LIST,
    copy_settings,
    difference_of_view,
    guarded_view,
    hidden_tensors,
    independent_copy,
    is_plain,
    module_view,
    tensors_of,
)
from moebius.core.routing import Router
from moebius.core.stack_state import accept_list_state, flat_names, renew_parameters
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError, MoebiusError


class Stack(nn.Module):
    """E equal experts of any architecture, whose parameters lie one on another: each is one tensor (E, …).

    The tensors are the stack's own, under the name that they have in an expert with underscores for its dots:
    `inner.weight` of all experts is `stack.inner_weight`. So an optimizer sees a few large tensors, products read them
    as they are, and tools that go by names see what there is. `load_state_dict` also takes the form of a list, one key
    for each expert's tensor (`3.inner.weight`).

    `stack[3]`, or the loop over a stack, gives an expert: a module of its own class whose parameters are views. It
    computes, what is written to it is written to the stack, gradients reach the stack, and `stack.apply(init)` reaches
    each one. Hooks, modes and settings of one expert hold for it; then experts run one by one. What a stack could only
    lose (freezing or moving one expert, replacing a part of it) is an error; `stack.unstacked()` makes experts of their
    own, for a list.

    Arguments:
        experts: at least one, equal but for the values of their parameters. Their values are copied.

    Raises:
        ArgumentError: no experts, unlike ones, ones that share a part, have hooks, or hold a mixture.

    Example:
        >>> stack = Stack([nn.Sequential(nn.Linear(4, 3)) for _ in range(5)])
        >>> {name: tuple(tensor.shape) for name, tensor in stack.state_dict().items()}
        {'0_weight': (5, 3, 4), '0_bias': (5, 3)}
        >>> stack[2](torch.zeros(7, 4)).shape
        torch.Size([7, 3])

    Reference: ours; torch.func's model ensembling.
    """

    template: nn.Module
    clauses: tuple[str | None, ...] | None  # what stands in the way of products, in this mode

    def __init__(self, experts: Sequence[nn.Module]):
        super().__init__()
        experts = list(experts)
        if not experts:
            raise ArgumentError("experts", "needs at least one expert", experts, "mb.Stack.of(make, count)")
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
        positive_integer("count", count)
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
        self.count, self._handed, self.clauses = count, ExpertViews(), None
        self.names = flat_names(first)
        shapes: dict[int, Any] = {}
        for name, part, table, key, tensor in tensors_of(first):
            if id(tensor) in shapes:
                continue
            values, shape = tensor.detach().new_empty(count, *tensor.shape), torch.empty_like(tensor, device="meta")
            if table == "_parameters":
                self.register_parameter(self.names[name], nn.Parameter(values, tensor.requires_grad))
                shape = nn.Parameter(shape, tensor.requires_grad)
            else:
                self.register_buffer(self.names[name], values, key not in part._non_persistent_buffers_set)
            shapes[id(tensor)] = shape
        # An expert with shapes in the place of tensors; no submodule, for it would be taken for one that runs.
        vars(self)["template"] = copy.deepcopy(first, shapes)
        self.parts: dict[nn.Module, dict[str, str]] = {}
        self.flat = {name: self.names[name] for name, *_ in tensors_of(self.template)}
        for name, part, _, key, _ in tensors_of(self.template):
            self.parts.setdefault(part, {})[key] = self.flat[name]
        self.quick = is_plain(self.template)
        self.places = [(f"experts.{path}".rstrip("."), part) for path, part in self.template.named_modules()]
        self.register_load_state_dict_pre_hook(accept_list_state)
        self.register_load_state_dict_post_hook(renew_parameters)

    @torch.no_grad()
    def _put(self, number: int, expert: nn.Module) -> None:
        for name, *_, tensor in tensors_of(expert):
            getattr(self, self.names[name])[number] = tensor

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, number: int) -> nn.Module: ...

    @overload
    def __getitem__(self, number: slice) -> list[nn.Module]: ...

    def __getitem__(self, number: int | slice) -> nn.Module | list[nn.Module]:
        if isinstance(number, slice):
            return [self[one] for one in range(self.count)[number]]
        if number not in range(-self.count, self.count):
            raise IndexError(number)
        number %= self.count
        with torch.enable_grad():
            of_one = {flat: tensor[number] for flat, tensor in self.tensors().items()}
        return self._handed.take(number, self.template, [of_one[flat] for flat in self.flat.values()])

    def __setitem__(self, number: int, expert: nn.Module) -> NoReturn:
        raise MoebiusError(f"experts.{number}: an expert of a stack cannot be replaced alone", f"{LIST}    # first")

    def __iter__(self) -> Iterator[nn.Module]:
        return (self[number] for number in range(self.count))

    def tensors(self) -> dict[str, Tensor]:
        """Name in the stack → tensor of all experts (E, …), as it is computed with: also where it is parametrised."""
        return {flat: getattr(self, flat) for flat in self.flat.values()}

    def tensor(self, part: nn.Module, key: str) -> Tensor | None:
        """The tensor (E, …) that all experts have in the place of one in a part of the template; None for none."""
        flat = self.parts.get(part, {}).get(key)
        return None if flat is None else getattr(self, flat)

    def only(self, numbers: Iterable[int], particulars: Mapping[int, nn.Module]) -> Iterator[nn.Module]:
        """The experts with these numbers, for this moment: to run them, not to keep or to change them.

        Arguments:
            numbers: which.
            particulars: what the method of that name gives.
        """
        # One unbind for all: the backward of E times t[e] would write E gradients of the size of all experts.
        columns = {flat: tensor.unbind() for flat, tensor in self.tensors().items()}
        flats = list(self.flat.values())
        for number in numbers:
            tensors = [columns[flat][number] for flat in flats]
            own = particulars.get(number)
            yield module_view(self.template, tensors, self.quick) if own is None else module_view(own, tensors)

    def particulars(self) -> dict[int, nn.Module]:
        """Number → expert, of those that have hooks, a mode or settings of their own.

        Raises:
            MoebiusError: a part or a tensor of an expert was replaced, which a stack cannot hold.
        """
        if not self._handed:
            return {}
        if torch.compiler.is_dynamo_compiling():
            if not self._differ():
                return {}
            from moebius.core.compilation import differing_experts

            return differing_experts(self)
        return self._handed.particulars(self.template)

    def _differ(self) -> bool:
        return self._handed.differ(self.template)

    # A compiler shall ask while it traces: it does not follow references to what may be gone.
    _differ._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def forward(self, x: Any, run: Callable[["Stack", Any], Any] | None = None) -> Any:
        """What `run` makes of the experts and the rows. A mixture calls its stack so that hooks and wrappers act."""
        if run is not None:
            return run(self, x)
        raise TypeError("a stack holds a mixture's experts: mb.Mixture(gate, stack) calls them")

    def apply(self, fn: Callable[[nn.Module], None]) -> "Stack":
        """`fn` for each part of each expert, as of a list of them, and then for the stack itself."""
        for expert in self:
            expert.apply(fn)
        fn(self)
        self._take_settings()
        return self

    def _take_settings(self) -> None:
        """Make the template what all experts have become alike."""
        experts = list(self.particulars().values())
        alike = len(experts) == self.count and not has_hooks(experts)
        if alike and all(difference_of_view(expert, experts[0]) is None for expert in experts):
            copy_settings(self.template, experts[0])
            self.clauses = None
            self.particulars()

    def reset_parameters(self) -> None:
        """Draw each expert's parameters anew, as its parts do it: after `to_empty`, for one."""
        for part in (part for expert in self for part in expert.modules()):
            if callable(reset := getattr(part, "reset_parameters", None)):
                reset()

    def train(self, mode: bool = True) -> "Stack":
        """Training or evaluation mode, for all experts."""
        super().train(mode)
        self.clauses = None
        for expert in (self.template, *self._handed.there().values()):
            expert.train(mode)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Stack":
        super()._apply(fn, recurse)
        self.renew()
        return self

    def renew(self) -> None:
        """Give whoever holds an expert the stack's tensors, where these are others than they were."""
        for number in self._handed.there():
            _ = self[number]

    def unstacked(self) -> list[nn.Module]:
        """The experts as modules of their own, with copies of their parameters."""
        return [independent_copy(expert) for expert in self.only(range(self.count), self.particulars())]

    def extra_repr(self) -> str:
        """How many, and what one is."""
        return f"count={self.count}, expert={self.template!r}"

    def __deepcopy__(self, memo: dict[int, Any]) -> "Stack":
        # A parametrised module brings a copy of its own, which knows nothing of experts that were handed out.
        made = memo[id(self)] = self.__new__(type(self))
        made.__setstate__(copy.deepcopy(Stack.__getstate__(self), memo))
        return made

    def __getstate__(self) -> dict[str, Any]:
        # Of experts that were handed out a copy has those that differ from the others.
        handed = {number: independent_copy(expert) for number, expert in self.particulars().items()}
        return {**vars(self), "_handed": handed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        handed = {
            number: guarded_view(expert, [getattr(self, flat)[number] for flat in self.flat.values()], number)
            for number, expert in state["_handed"].items()
        }
        self._handed = ExpertViews(handed)


def unstackable_reason(experts: Sequence[nn.Module]) -> str | None:
    """Why these experts cannot share stacked parameters, as the end of a sentence; None where they can."""
    for part in (part for expert in experts for part in expert.modules()):
        if isinstance(part, Router | Stack):
            return f"{type(part).__name__} inside is a part of a mixture, which is called and recorded by itself"
    if has_hooks(experts):
        return "some have hooks, and each would get those of the first"
    why = difference(experts)
    if why is not None:
        return why
    tensors = [{id(tensor): tensor for *_, tensor in tensors_of(expert)} for expert in experts]
    odd = next((one for one in tensors[0].values() if type(one) not in (Tensor, nn.Parameter)), None)
    if odd is not None:
        return f"their tensors are of a kind of their own, {type(odd).__name__}, which a stack would lose"
    if len(set().union(*tensors)) < sum(map(len, tensors)):
        return "they share a part, and each would get its own"
    beside = next((name for expert in experts if (name := hidden_tensors(expert)) is not None), None)
    if beside is not None:
        return f"their attribute {beside} leads to parameters that are not theirs, and each would get copies"
    trained = [[tensor.requires_grad for tensor in of_one.values()] for of_one in tensors]
    if any(one != trained[0] for one in trained):
        return "in some of them parameters are frozen that are not in others"
    return None


def _check(experts: Sequence[nn.Module]) -> None:
    why = unstackable_reason(experts)
    if why is not None:
        raise ArgumentError("experts", f"a stack needs equal experts: {why}", len(experts), "a list of them")
