"""`Stack`: equal experts that share stacked parameters."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, overload

import torch
from torch import Tensor, nn

from moebius.core.equality import has_hooks, named_parts
from moebius.core.expert_views import ExpertViews
from moebius.core.module_views import (
    UNSTACK_FIX,
    copy_settings,
    describe_view_difference,
    guarded_view,
    has_plain_attributes,
    independent_copy,
    module_view,
    named_tensors,
)
from moebius.core.routing import Router
from moebius.core.stack_state import accept_list_state, check_whole, flat_names, refresh_views_after_load
from moebius.core.stackability import describe_obstacle
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError, MoebiusError


class Stack(nn.Module):
    """E equal experts of any architecture, each of whose parameters is one tensor (E, …) for all experts.

    A tensor has the name that it has in an expert, with underscores for dots: `inner.weight` of all experts is
    `stack.inner_weight`. So an optimizer sees a few large tensors, matrix products read them without copying, and tools
    that go by parameter names work. `load_state_dict` also takes the state of a list of experts, with one key for each
    expert's tensor (`3.inner.weight`).

    `stack[3]`, or iterating over a stack, gives an expert: a module of its class whose parameters are views of the
    stack's. It computes, writing to its parameters writes to the stack, gradients reach the stack, and
    `stack.apply(init)` reaches every expert. An expert may have hooks, a mode or settings that others lack; then the
    experts run one by one. Changes that a stack cannot hold (freezing or moving one expert, replacing a part of it)
    raise an error; `stack.unstacked()` returns independent experts, for a list.

    Arguments:
        experts: at least one, equal but for the values of their parameters. Their values are copied.

    Raises:
        ArgumentError: there are no experts, or they are unequal, share a part, have hooks, or contain a mixture.

    Example:
        >>> stack = Stack([nn.Sequential(nn.Linear(4, 3)) for _ in range(5)])
        >>> {name: tuple(tensor.shape) for name, tensor in stack.state_dict().items()}
        {'0_weight': (5, 3, 4), '0_bias': (5, 3)}
        >>> stack[2](torch.zeros(7, 4)).shape
        torch.Size([7, 3])

    Reference: ours; torch.func's model ensembling.
    """

    template: nn.Module  # an expert whose tensors are on the meta device
    product_obstacles: tuple[str | None, ...] | None  # why products cannot run in this mode; None until asked

    def __init__(self, experts: Sequence[nn.Module]):
        super().__init__()
        experts = list(experts)
        if not experts:
            raise ArgumentError("experts", "needs at least one expert", experts, "mb.Stack.of(make, count)")
        _check_stackable(experts)
        self._allocate(experts[0], len(experts))
        for number, expert in enumerate(experts):
            self._copy_expert(number, expert)

    @classmethod
    def of(cls, make: Callable[[], nn.Module], count: int) -> "Stack":
        """Make a stack of `count` experts one after another: only one of them is in memory besides the stack.

        Arguments:
            make: returns a new expert.
            count: E, how many experts to make.

        Raises:
            ArgumentError: `count` is below 1, or the experts cannot be stacked.

        Example:
            >>> len(Stack.of(lambda: nn.Linear(4, 3), 5))
            5
        """
        positive_integer("count", count)
        stack = cls.__new__(cls)
        nn.Module.__init__(stack)
        first = make()
        stack._allocate(first, count)
        stack._copy_expert(0, first)
        for number in range(1, count):
            expert = make()
            _check_stackable([first, expert])
            stack._copy_expert(number, expert)
        return stack

    def _allocate(self, first: nn.Module, count: int) -> None:
        """Register tensors for `count` experts like the first one, without its values, and make the template."""
        _check_stackable([first])
        self.count, self._views, self.product_obstacles = count, ExpertViews(), None
        self.flat_names = flat_names(first)
        meta_tensors: dict[int, Any] = {}
        for name, part, table, key, tensor in named_tensors(first):
            if id(tensor) in meta_tensors:
                continue
            stacked, meta = tensor.detach().new_empty(count, *tensor.shape), torch.empty_like(tensor, device="meta")
            if table == "_parameters":
                self.register_parameter(self.flat_names[name], nn.Parameter(stacked, tensor.requires_grad))
                meta = nn.Parameter(meta, tensor.requires_grad)
            else:
                self.register_buffer(self.flat_names[name], stacked, key not in part._non_persistent_buffers_set)
            meta_tensors[id(tensor)] = meta
        # No registered submodule: tools would take the template for a module that runs.
        vars(self)["template"] = copy.deepcopy(first, meta_tensors)
        self.part_tensors: dict[nn.Module, dict[str, str]] = {}
        self.template_names = {name: self.flat_names[name] for name, *_ in named_tensors(self.template)}
        for name, part, _, key, _ in named_tensors(self.template):
            self.part_tensors.setdefault(part, {})[key] = self.template_names[name]
        self.has_plain_template = has_plain_attributes(self.template)
        self.named_parts = named_parts(self.template)
        self.register_load_state_dict_pre_hook(accept_list_state)
        self.register_load_state_dict_post_hook(refresh_views_after_load)

    @torch.no_grad()
    def _copy_expert(self, number: int, expert: nn.Module) -> None:
        for name, *_, tensor in named_tensors(expert):
            getattr(self, self.flat_names[name])[number] = tensor

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, number: int) -> nn.Module: ...

    @overload
    def __getitem__(self, number: slice) -> list[nn.Module]: ...

    def __getitem__(self, number: int | slice) -> nn.Module | list[nn.Module]:
        if isinstance(number, slice):
            return [self[index] for index in range(self.count)[number]]
        if number not in range(-self.count, self.count):
            raise IndexError(number)
        number %= self.count
        check_whole(self, number)
        with torch.enable_grad():
            slices = {flat_name: stacked[number] for flat_name, stacked in self.tensors().items()}
        tensors = [slices[flat_name] for flat_name in self.template_names.values()]
        return self._views.provide_view(number, self.template, tensors)

    def __setitem__(self, number: int, expert: nn.Module) -> NoReturn:
        rule = "an expert of a stack cannot be replaced alone"
        raise MoebiusError(f"experts.{number}: {rule}", f"{UNSTACK_FIX}    # first")

    def __iter__(self) -> Iterator[nn.Module]:
        return (self[number] for number in range(self.count))

    def tensors(self) -> dict[str, Tensor]:
        """Name in the stack → tensor of all experts (E, …); the computed value of a tensor that is parametrised."""
        return {flat_name: getattr(self, flat_name) for flat_name in self.template_names.values()}

    def tensor(self, part: nn.Module, key: str) -> Tensor | None:
        """The tensor (E, …) of all experts for the tensor `key` of a part of the template; None where it has none."""
        flat_name = self.part_tensors.get(part, {}).get(key)
        return None if flat_name is None else getattr(self, flat_name)

    def temporary_views(self, numbers: Iterable[int], differing: Mapping[int, nn.Module]) -> Iterator[nn.Module]:
        """Views of the experts with these numbers, to run now; they are neither to be kept nor to be changed.

        Arguments:
            numbers: the experts' numbers.
            differing: the result of `differing_experts()`.
        """
        # One unbind for all: the backward of E times t[e] would write E gradients of the size of all experts.
        slices = {flat_name: stacked.unbind() for flat_name, stacked in self.tensors().items()}
        for number in numbers:
            tensors = [slices[flat_name][number] for flat_name in self.template_names.values()]
            expert = differing.get(number)
            plain = self.has_plain_template if expert is None else None
            yield module_view(self.template if expert is None else expert, tensors, plain)

    def differing_experts(self) -> dict[int, nn.Module]:
        """Expert number → view, of the experts whose hooks, mode or settings are not those of the template.

        Raises:
            MoebiusError: a part or a tensor of an expert was replaced, which a stack cannot hold.
        """
        if not self._views:
            return {}
        if torch.compiler.is_dynamo_compiling():
            if not self._has_changes():
                return {}
            from moebius.core.compilation import differing_experts

            return differing_experts(self)
        return self._views.differing_experts(self.template)

    def _has_changes(self) -> bool:
        return self._views.has_changes(self.template)

    # A compiler evaluates this while it traces, because it does not follow weak references.
    _has_changes._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def forward(self, x: Any, run: Callable[["Stack", Any], Any] | None = None) -> Any:
        """Return `run(stack, x)`. A mixture calls its stack in this way, so that hooks and wrappers of the stack act.

        Raises:
            TypeError: there is no `run`, because somebody called the stack itself.
        """
        if run is not None:
            return run(self, x)
        raise TypeError("a stack holds a mixture's experts: mb.Mixture(gate, stack) calls them")

    def apply(self, fn: Callable[[nn.Module], None]) -> "Stack":
        """Call `fn` with each part of each expert, as for a list of experts, and then with the stack itself."""
        for expert in self:
            expert.apply(fn)
        fn(self)
        self._adopt_settings()
        return self

    def _adopt_settings(self) -> None:
        """Copy the experts' settings to the template where all experts differ from it in the same way."""
        experts = list(self.differing_experts().values())
        can_adopt = len(experts) == self.count and not has_hooks(experts)
        if can_adopt and all(describe_view_difference(expert, experts[0]) is None for expert in experts):
            copy_settings(self.template, experts[0])
            self.product_obstacles = None
            self.differing_experts()

    def reset_parameters(self) -> None:
        """Call `reset_parameters` of every part of every expert: after `to_empty`, for example."""
        for part in (part for expert in self for part in expert.modules()):
            if callable(reset := getattr(part, "reset_parameters", None)):
                reset()

    def train(self, mode: bool = True) -> "Stack":
        """Set training or evaluation mode for all experts."""
        super().train(mode)
        self.product_obstacles = None
        for expert in (self.template, *self._views.live_views().values()):
            expert.train(mode)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Stack":
        super()._apply(fn, recurse)
        self.refresh_views()
        return self

    def refresh_views(self) -> None:
        """Give the views that were handed out the stack's present tensors, after these were replaced."""
        for number in self._views.live_views():
            _ = self[number]

    def unstacked(self) -> list[nn.Module]:
        """The experts as independent modules with copies of their parameters."""
        check_whole(self, 0)
        return [*map(independent_copy, self.temporary_views(range(self.count), self.differing_experts()))]

    def extra_repr(self) -> str:
        """The number of experts and the template."""
        return f"count={self.count}, expert={self.template!r}"

    def __deepcopy__(self, memo: dict[int, Any]) -> "Stack":
        # A parametrised module has a class with a `__deepcopy__` that would copy no views.
        stack = memo[id(self)] = self.__new__(type(self))
        stack.__setstate__(copy.deepcopy(Stack.__getstate__(self), memo))
        return stack

    def __getstate__(self) -> dict[str, Any]:
        # A copy keeps those views that differ from the template.
        views = {number: independent_copy(expert) for number, expert in self.differing_experts().items()}
        return {**vars(self), "_views": views}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        flat_names = self.template_names.values()
        views = {
            number: guarded_view(expert, [getattr(self, flat_name)[number] for flat_name in flat_names], number)
            for number, expert in state["_views"].items()
        }
        self._views = ExpertViews(views)


def unstackable_reason(experts: Sequence[nn.Module]) -> str | None:
    """Why these experts cannot share stacked parameters, as the end of a sentence; None where they can."""
    for part in (part for expert in experts for part in expert.modules()):
        if isinstance(part, Router | Stack):
            return f"{type(part).__name__} inside is a part of a mixture, which is called and recorded by itself"
    return describe_obstacle(experts)


def _check_stackable(experts: Sequence[nn.Module]) -> None:
    reason = unstackable_reason(experts)
    if reason is not None:
        rule = f"a stack needs equal experts: {reason}"
        raise ArgumentError("experts", rule, len(experts), "mb.Mixture(gate, list(experts))")
