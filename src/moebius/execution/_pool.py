"""A mixture's experts in one forward, and what prevents computing several of them at once."""

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from moebius.core.equality import HOOK_TABLES, Structure, has_global_hooks
from moebius.core.module_views import describe_view_difference
from moebius.core.row_context import takes_context
from moebius.core.stack import Stack
from moebius.execution._row_major import RowMajorLinear
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
_DENSE = (nn.Linear, RowMajorLinear, nn.Sequential, nn.ModuleList, nn.Flatten, nn.Dropout, *_ELEMENTWISE)
# Packages whose classes compute what their forward says, from nothing but their inputs and tensors.
_PACKAGES = ("torch.nn.modules.", "moebius.experts.", "moebius.networks.")
_OPAQUE = (Adapter, nn.RNNBase, nn.RNNCellBase)


def _computed_once(compute: Callable[[Any], Any]) -> Any:
    """A property that is computed at first use: functools.cached_property has a lock, which no compiler follows."""
    attribute = f"_{compute.__name__}_value"

    @wraps(compute)
    def read(self: Any) -> Any:
        if attribute not in vars(self):
            setattr(self, attribute, compute(self))
        return getattr(self, attribute)

    return property(read)


class Pool:
    """The experts that an execution runs, a list of modules or a stack; each property is computed once per forward.

    Arguments:
        experts: E modules, or a stack of them.
        numbers: the numbers that these experts have in their mixture; None if they are all of its experts.

    Raises:
        MoebiusError: an expert of a stack was changed in a way that a stack cannot hold.
    """

    def __init__(self, experts: Sequence[nn.Module] | nn.ModuleList | Stack, numbers: Sequence[int] | None = None):
        self.stack = experts if isinstance(experts, Stack) else None
        self.particulars = {} if self.stack is None else self.stack.differing_experts()
        self.modules: list[nn.Module] = [] if isinstance(experts, Stack) else list(experts)
        self.count = len(experts)
        # What moves rows to experts of other processes; None where all experts are here.
        self.dispatcher = vars(experts).get("dispatcher") if isinstance(experts, nn.Module) else None
        self.is_complete, self.numbers = numbers is None, range(self.count) if numbers is None else numbers

    def __len__(self) -> int:
        return self.count

    @property
    def template(self) -> nn.Module:
        """The module that represents all experts where they are equal: the stack's template, or the first expert."""
        return self.modules[0] if self.stack is None else self.stack.template

    def select(self, numbers: Sequence[int]) -> Iterable[nn.Module]:
        """The experts with these numbers, to run them one by one."""
        if self.stack is not None:
            return self.stack.temporary_views(numbers, self.particulars)
        return [self.modules[number] for number in numbers]

    def all_experts(self) -> Iterable[nn.Module]:
        """All experts, to run them one by one."""
        return self.select(range(self.count))

    @_computed_once
    def groups(self) -> list["Pool"]:
        """The experts in groups that are equal except for the values of their tensors."""
        if self.stack is not None:
            return [self]
        groups: list[list[int]] = []
        for number, structure in enumerate(self.structures):
            for group in groups:
                if structure.difference(self.structures[group[0]]) is None:
                    group.append(number)
                    break
            else:
                groups.append([number])
        return [self] if len(groups) == 1 else [Pool([self.modules[n] for n in group], group) for group in groups]

    @_computed_once
    def structures(self) -> list[Structure]:
        """What each expert of a list consists of."""
        return [Structure(module) for module in self.modules]

    @property
    def runs_at_once(self) -> bool:
        """Whether these equal experts can be computed at once, and are not a single one of a mixture of several."""
        return None in self._obstacles and (self.is_complete or len(self) > 1)

    @property
    def product_obstacle(self) -> str | None:
        """What prevents a product of dense layers, as a clause that names a module; None if nothing does.

        A product replaces the forward of every module in an expert. So the class of each module must be exactly one
        that the product implements, and nothing may be added to a module: no hooks, no parametrisations, no forward on
        the instance, no tensors of a subclass.
        """
        return self._obstacles[0]

    @property
    def vmap_obstacle(self) -> str | None:
        """What prevents running equal experts at once without dense products, as a clause that names a module."""
        return self._obstacles[1]

    @_computed_once
    def _obstacles(self) -> tuple[str | None, str | None]:
        """`product_obstacle` and `vmap_obstacle`."""
        for number, expert in self.particulars.items():
            clause = describe_view_difference(expert, self.template, f"experts.{number}")
            return clause, clause
        if has_global_hooks():
            return (clause := "hooks for every module wait for the experts to be called"), clause
        stack = None if torch.compiler.is_compiling() else self.stack
        if stack is None:
            addition, product, vmap = self._inspect_modules()
        else:
            # Only a change of mode changes what the experts of a stack consist of.
            stack.product_obstacles = stack.product_obstacles or self._inspect_modules()
            addition, product, vmap = stack.product_obstacles
        if addition is not None:
            return addition, addition
        tensors = {} if self.stack is None else self.stack.tensors()
        unusual = next((name for name, tensor in tensors.items() if not _is_plain_tensor(tensor)), None)
        if unusual is not None:
            return (clause := f"experts.{unusual} is a {type(tensors[unusual]).__name__}"), clause
        return (None, None) if product is None else (product, vmap)

    def _inspect_modules(self) -> tuple[str | None, str | None, str | None]:
        """Clauses on the first module with an addition, that prevents a product, and that prevents vmap.

        Each is None if there is no such module. What is not needed is not looked for.
        """
        addition = self._first_clause(_describe_addition, len(self))
        if addition is not None:
            return addition, None, None
        # Equal experts have equal obstacles.
        different = len(self) if self.stack is None and self.is_complete and len(self.groups) > 1 else 1
        product = self._first_clause(_describe_product_obstacle, different)
        return None, product, None if product is None else self._first_clause(_describe_vmap_obstacle, different)

    def _first_clause(self, describe: Callable[[nn.Module], str | None], experts: int) -> str | None:
        """The first clause on a module in so many experts; of a stack one expert stands for all."""
        if self.stack is not None:
            named = [("experts", self.stack.named_parts)]
        else:
            named = [(f"experts.{number}", s.parts) for number, s in zip(self.numbers, self.structures, strict=True)]
        for name, parts in named[:experts]:
            for path, module in parts:
                clause = describe(module)
                if clause is not None:
                    return f"{name}.{path}".rstrip(".") + f" {clause}"
        return None

    @_computed_once
    def layers_obstacle(self) -> str | None:
        """Why the experts cannot be computed dense layer by dense layer, as the end of a sentence; else None."""
        if self.product_obstacle is not None:
            return f"needs experts of dense layers alone: {self.product_obstacle}"
        if not _flattens_only_first(self.template):
            kind = type(self.template).__name__
            return f"needs experts of dense layers that treat rows alike, and {kind} merges axes"
        return None

    def refuses_rows(self, x: Tensor) -> str | None:
        """Why dense layers of stacked experts cannot be computed for such rows, as the end of a sentence; else None."""
        if self.stack is None:
            return "needs experts that share stacked parameters: mb.Stack(experts)"
        if self.layers_obstacle is None and x.ndim != 2 and not _flattens_rows(self.template, x):
            return f"needs rows that are vectors, and these are of shape {tuple(x.shape[1:])}"
        return self.layers_obstacle


def _describe_product_obstacle(module: nn.Module) -> str | None:
    if type(module) not in _DENSE and "rowwise" not in vars(type(module)):
        return f"is a {type(module).__name__}, which no product of dense layers knows"
    if isinstance(module, nn.Dropout) and module.training and module.p:
        return "is active dropout, which draws for other rows than the loop"
    return None


def _describe_vmap_obstacle(module: nn.Module) -> str | None:
    kind = type(module)
    if not f"{kind.__module__}.".startswith(_PACKAGES) or isinstance(module, _OPAQUE) or takes_context(kind):
        return f"is a {kind.__name__}, of a class that is not known to compute by its tensors alone"
    if isinstance(module, _NormBase) and module.training:
        return f"is a {kind.__name__}, which updates batch statistics"
    if isinstance(module, _DropoutNd) and module.training and module.p:
        return "is active dropout, which draws for other rows than the loop"
    return None


def _describe_addition(module: nn.Module) -> str | None:
    """What was added to a module beyond its class, as the end of a clause."""
    attributes = vars(module)
    for hooks in HOOK_TABLES:
        if attributes.get(hooks):
            return "has hooks"
    if "forward" in attributes:
        return "has a forward of its own"
    if "parametrizations" in attributes["_modules"]:
        return "is parametrised"
    for table in ("_parameters", "_buffers"):
        for name, tensor in attributes[table].items():
            if tensor is not None and type(tensor) is not nn.Parameter and not _is_plain_tensor(tensor):
                return f"has a {name} that is a {type(tensor).__name__}"
    return None


def _is_plain_tensor(tensor: Any) -> bool:
    # While compiling, tensors of the compiler's own classes replace all others.
    return type(tensor) in (Tensor, nn.Parameter) or torch.compiler.is_compiling()


def _flattens_only_first(module: nn.Module, is_first: bool = True) -> bool:
    """Whether axes are merged by the first layer at most: after a layer of all experts it would merge their axis."""
    if type(module) is nn.Sequential:
        return all(_flattens_only_first(layer, is_first and place == 0) for place, layer in enumerate(module))
    if type(module) is nn.Flatten:
        return is_first and (module.start_dim, module.end_dim) == (1, -1)
    return type(module) is not nn.ModuleList


def _flattens_rows(module: nn.Module, x: Tensor) -> bool:
    """Whether the module first merges all axes of a row into one."""
    if type(module) is nn.Sequential and len(module):
        return _flattens_rows(module[0], x)
    features = getattr(module, "features", None)
    return type(module) is nn.Flatten or (x.shape[-1] != features and prod(x.shape[1:]) == features)
