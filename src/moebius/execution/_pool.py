"""A mixture's experts in one forward, and what stands in the way of computing several of them at once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from moebius.core.equality import HOOK_TABLES, describe_difference, has_global_hooks
from moebius.core.module_views import describe_view_difference
from moebius.core.row_context import takes_context
from moebius.core.stack import Stack
from moebius.experts.adapter import Adapter

# Modules of torch without parameters that treat every number by itself.
_ELEMENTWISE = (
    nn.Identity,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
    nn.Hardtanh,
    nn.Hardswish,
)
_DENSE = (nn.Linear, nn.Sequential, nn.ModuleList, nn.Flatten, nn.Dropout, *_ELEMENTWISE)
# Rooms whose classes compute what their forward says, with nothing but their tensors.
_ROOMS = ("torch.nn.modules.", "moebius.experts.", "moebius.networks.")
_OPAQUE = (Adapter, nn.RNNBase, nn.RNNCellBase)


def _once(question: Callable[[Any], Any]) -> Any:
    """A property that is worked out once: functools' own has a lock, which no compiler follows."""
    name = f"_{question.__name__}"

    @wraps(question)
    def answer(self: Any) -> Any:
        if name not in vars(self):
            setattr(self, name, question(self))
        return getattr(self, name)

    return property(answer)


class Pool:
    """The experts as an execution meets them: modules of their own, or a stack. Each question is answered once.

    Arguments:
        experts: E modules, or a stack of them.
        numbers: which of a mixture's experts they are; all of them unless given.

    Raises:
        MoebiusError: an expert of a stack was changed in a way that a stack cannot hold.
    """

    def __init__(self, experts: Sequence[nn.Module] | nn.ModuleList | Stack, numbers: Sequence[int] | None = None):
        self.stack = experts if isinstance(experts, Stack) else None
        self.particulars = {} if self.stack is None else self.stack.differing_experts()
        self.modules: list[nn.Module] = [] if isinstance(experts, Stack) else list(experts)
        self.count = len(experts)
        self.whole, self.numbers = numbers is None, range(self.count) if numbers is None else numbers

    def __len__(self) -> int:
        return self.count

    @property
    def first(self) -> nn.Module:
        """What stands for all where they are equal: the stack's template, or the first of them."""
        return self.modules[0] if self.stack is None else self.stack.template

    def some(self, numbers: Sequence[int]) -> Iterable[nn.Module]:
        """The experts with these numbers, to run them one by one."""
        if self.stack is not None:
            return self.stack.temporary_views(numbers, self.particulars)
        return [self.modules[number] for number in numbers]

    def every(self) -> Iterable[nn.Module]:
        """All of them, to run them one by one."""
        return self.some(range(self.count))

    @_once
    def alike(self) -> list["Pool"]:
        """The experts in groups that are equal but for their values; `numbers` says which they are."""
        if self.stack is not None:
            return [self]
        groups: list[list[int]] = []
        for number, expert in enumerate(self.modules):
            same = next(
                (group for group in groups if describe_difference([self.modules[group[0]], expert]) is None), None
            )
            groups.append([number]) if same is None else same.append(number)
        return [self] if len(groups) == 1 else [Pool([self.modules[n] for n in group], group) for group in groups]

    @property
    def at_once(self) -> bool:
        """Whether nothing stands in the way of computing them at once, and it is not one among others."""
        return None in self.obstacle and (self.whole or len(self) > 1)

    @_once
    def obstacle(self) -> tuple[str | None, str | None]:
        """What stands in the way of a product of dense layers, and of running equal experts at once in another way.

        Each names a module, as a clause; None where nothing does. A product takes the place of the forward of every
        module in an expert. So each has to be exactly of a class that the product knows, with nothing added to it:
        hooks, parametrisations, a forward of its own, tensors of a kind of their own.
        """
        for number, expert in self.particulars.items():
            clause = describe_view_difference(expert, self.first, f"experts.{number}")
            return clause, clause
        if has_global_hooks():
            return (clause := "hooks for every module wait for the experts to be called"), clause
        stack = None if torch.compiler.is_compiling() else self.stack
        if stack is None:
            strange, dense, unknown = self._of_parts()
        else:
            # Nothing but a mode changes what a stack's experts are made of.
            stack.product_obstacles = stack.product_obstacles or self._of_parts()
            strange, dense, unknown = stack.product_obstacles
        if strange is not None:
            return strange, strange
        kept = {} if self.stack is None else self.stack.tensors()
        odd = next((flat for flat, tensor in kept.items() if not _usual(tensor)), None)
        if odd is not None:
            return (clause := f"experts.{odd} is a {type(kept[odd]).__name__}"), clause
        return (None, None) if dense is None else (dense, unknown)

    def _of_parts(self) -> tuple[str | None, str | None, str | None]:
        """What was added to a module; which one no product of dense layers knows; which cannot run at once at all."""
        dense = unknown = None
        for place, part in self._parts():
            strange = _strange(part)
            if strange is not None:
                return f"{place} {strange}", None, None
            dense = _no_dense_layer(place, part) if dense is None else dense
            unknown = _unknown(place, part) if unknown is None else unknown
        return None, dense, unknown

    def _parts(self) -> Iterator[tuple[str, nn.Module]]:
        """Every module in the experts with its place; of a stack's experts, which are alike, those of one."""
        if self.stack is not None:
            yield from self.stack.named_parts
            return
        for number, expert in zip(self.numbers, self.modules, strict=True):
            for path, part in expert.named_modules():
                yield f"experts.{number}.{path}".rstrip("."), part

    @_once
    def layered(self) -> str | None:
        """Why the experts cannot be computed dense layer by dense layer, as the end of a sentence; else None."""
        if self.obstacle[0] is not None:
            return f"needs experts of dense layers alone: {self.obstacle[0]}"
        if not _by_rows(self.first):
            return f"needs experts of dense layers that treat rows alike, and {type(self.first).__name__} merges axes"
        return None

    def refuses_rows(self, x: Tensor) -> str | None:
        """Why dense layers of stacked experts cannot be computed for such rows, as the end of a sentence; else None."""
        if self.stack is None:
            return "needs experts that share stacked parameters: mb.Stack(experts)"
        if self.layered is None and x.ndim != 2 and not _makes_vectors(self.first, x):
            return f"needs rows that are vectors, and these are of shape {tuple(x.shape[1:])}"
        return self.layered


def _no_dense_layer(place: str, part: nn.Module) -> str | None:
    if type(part) not in _DENSE and "rowwise" not in vars(type(part)):
        return f"{place} is a {type(part).__name__}, which no product of dense layers knows"
    if isinstance(part, nn.Dropout) and part.training and part.p:
        return f"{place} is active dropout, which draws for other rows than the loop"
    return None


def _unknown(place: str, part: nn.Module) -> str | None:
    kind = type(part)
    if not f"{kind.__module__}.".startswith(_ROOMS) or isinstance(part, _OPAQUE) or takes_context(kind):
        return f"{place} is a {kind.__name__}, of a class that is not known to compute by its tensors alone"
    if isinstance(part, _NormBase) and part.training:
        return f"{place} is a {kind.__name__}, which updates batch statistics"
    if isinstance(part, _DropoutNd) and part.training and part.p:
        return f"{place} is active dropout, which draws for other rows than the loop"
    return None


def _strange(part: nn.Module) -> str | None:
    """What was added to a module, as the end of a clause."""
    own = vars(part)
    if any(own.get(hooks) for hooks in HOOK_TABLES):
        return "has hooks"
    if "forward" in own:
        return "has a forward of its own"
    if "parametrizations" in own["_modules"]:
        return "is parametrised"
    for table in ("_parameters", "_buffers"):
        for key, tensor in own[table].items():
            if tensor is not None and not _usual(tensor):
                return f"has a {key} that is a {type(tensor).__name__}"
    return None


def _usual(tensor: Any) -> bool:
    # A compiler has tensors of its own in the place of any.
    return type(tensor) in (Tensor, nn.Parameter) or torch.compiler.is_compiling()


def _by_rows(module: nn.Module, first: bool = True) -> bool:
    """Whether axes are merged at the beginning alone: behind a dense layer of all experts it would merge these."""
    if type(module) is nn.Sequential:
        return all(_by_rows(part, first and place == 0) for place, part in enumerate(module))
    if type(module) is nn.Flatten:
        return first and (module.start_dim, module.end_dim) == (1, -1)
    return type(module) is not nn.ModuleList


def _makes_vectors(module: nn.Module, x: Tensor) -> bool:
    """Whether it merges the axes of its rows before anything else."""
    if type(module) is nn.Sequential and len(module):
        return _makes_vectors(module[0], x)
    features = getattr(module, "features", None)
    return type(module) is nn.Flatten or (x.shape[-1] != features and prod(x.shape[1:]) == features)
