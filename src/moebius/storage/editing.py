"""Another number of experts: a mixture that exists, with one more, one less, or one exchanged.

Each gives a new mixture, or a new module around one; the old one stays as it is and works. A `PositionMixture` is such
a mixture too; a layer with a gate for each task is not, for all its gates would change. What stays is shared, not
copied: the other experts, the combine, the gate but for its last layer. Training the one trains these parts of the
other too (`copy.deepcopy` beforehand makes them two). The experts of a `Stack` are copied: their new number needs
another stack, which they form where all are still equal.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from moebius.core.expert_outputs import reads_expert_outputs
from moebius.core.routing import Router
from moebius.core.stack import Stack, unstackable_reason
from moebius.kit.errors import ArgumentError
from moebius.layers.cgc import CGC
from moebius.layers.mixture import Mixture
from moebius.layers.multi_gate_mixture import MultiGateMixture
from moebius.layers.position_mixture import PositionMixture
from moebius.routers.dselect_k import DSelectK
from moebius.storage.spec import build, describe, room_of

Model = TypeVar("Model", bound=nn.Module)
AnyMixture = TypeVar("AnyMixture", bound=Mixture | PositionMixture)
# Maps the old experts' rows of a tensor, (E, …), to those of the new experts. The flag: a new row is zero.
Rows = Callable[[Tensor, bool], Tensor]


def add_expert(model: Model, expert: nn.Module, gate: nn.Module | None = None, at: str | None = None) -> Model:
    """A mixture with one more expert, the last; the gate's scores for the others stay as they are.

    The gate's last layer gets a row for it, in every block of E rows that the router reads: weights of 0 and the mean
    of the others' biases, so that it begins with about an average score; where there is no bias, the mean of all rows.

    Arguments:
        model: the mixture, a subclass of one, or any module with mixtures inside; it is left as it was.
        expert: any module whose outputs have the shape of the others'.
        gate: one for the new number of experts, to take the old one's place as it is.
        at: the path of the mixture inside the model ("layers.3.mixture"); needed where there are several.

    Raises:
        ArgumentError: a gate without such a layer, or made for its experts (`domain`, and those that read what experts
            give, or know their classes), or a router whose codes change with their number (`dselect_k`): supply a
            `gate`. No mixture at this path.

    Example:
        >>> import tempfile, torch, moebius as mb
        >>> folder = tempfile.mkdtemp()
        >>> mb.save(mb.Mixture(mb.gates.Linear(4, 2), [mb.experts.Linear(4, 3) for _ in range(2)]), folder)
        >>> moe = add_expert(mb.load(folder), mb.experts.MLP(4, 3, hidden=[8]))
        >>> mb.save(moe, folder)
        >>> len(mb.load(folder).experts)
        3

    Reference: ours.
    """
    moe = _mixture_at(model, at)
    experts = [*_experts(moe), expert.train(moe.training)]
    return _with_part(model, moe, _with_experts_and_gate(moe, experts, _with_one_more, gate))


def drop_expert(model: Model, index: int, gate: nn.Module | None = None, at: str | None = None) -> Model:
    """A mixture without one of its experts; the gate's scores for the others stay as they are.

    Arguments:
        model: the mixture, a subclass of one, or any module with mixtures inside; it is left as it was.
        index: the expert's, 0 … E − 1; those after it move up.
        gate: one for the new number of experts, to take the old one's place as it is.
        at: the path of the mixture inside the model; needed where there are several.

    Raises:
        ArgumentError: no such expert, the only one, a gate or router as for `add_expert`, or no mixture at this path.

    Example:
        >>> import moebius as mb
        >>> moe = mb.Mixture(mb.gates.Linear(4, 3), [mb.experts.Linear(4, 3) for _ in range(3)])
        >>> drop_expert(moe, 1).experts[1] is moe.experts[2]
        True

    Reference: ours.
    """
    moe = _mixture_at(model, at)
    _check_index(moe, index)
    if len(moe.experts) == 1:
        rule = "names the only expert, and a mixture has at least one"
        raise ArgumentError("index", rule, index, "mb.replace_expert")
    rest = [number for number in range(len(moe.experts)) if number != index]
    experts = _experts(moe)
    smaller = _with_experts_and_gate(moe, [experts[number] for number in rest], lambda values, zero: values[rest], gate)
    return _with_part(model, moe, smaller)


def replace_expert(model: Model, index: int, expert: nn.Module, at: str | None = None) -> Model:
    """A mixture with another module in an expert's place; the gate and the router are the same ones.

    Arguments:
        model: the mixture, a subclass of one, or any module with mixtures inside; it is left as it was.
        index: the expert's, 0 … E − 1.
        expert: any module whose outputs have the shape of the others'.
        at: the path of the mixture inside the model; needed where there are several.

    Raises:
        ArgumentError: no such expert, or no mixture at this path.

    Example:
        >>> import torch, moebius as mb
        >>> moe = mb.Mixture(mb.gates.Linear(4, 2), [mb.experts.Linear(4, 3) for _ in range(2)])
        >>> replace_expert(moe, 0, torch.nn.Linear(4, 3)).gate is moe.gate
        True

    Reference: ours.
    """
    moe = _mixture_at(model, at)
    _check_index(moe, index)
    experts = _experts(moe)
    experts[index] = expert.train(moe.training)
    return _with_part(model, moe, _mixture(moe, moe.gate, experts, moe.router))


def _mixture_at(model: nn.Module, at: str | None) -> Mixture | PositionMixture:
    """The mixture at a path; the model itself, or the only one inside it, where no path is named."""
    if at is None and isinstance(model, Mixture | PositionMixture):
        return model
    mixtures = {path: part for path, part in model.named_modules() if isinstance(part, Mixture | PositionMixture)}
    layers = {path: part for path, part in model.named_modules() if isinstance(part, MultiGateMixture | CGC)}
    if at in layers or (layers and not mixtures):
        path = at if at in layers else next(iter(layers))
        rule = "has a gate for each task, and another expert needs a new one of each"
        fix = (
            "a new layer with the experts, gates and towers of this one: mb.layers.CGC(gates, experts, shared, towers)"
        )
        if isinstance(layers[path], MultiGateMixture):
            fix = fix.replace("CGC(gates, experts, shared, towers)", "MultiGateMixture(gates, experts, towers)")
        raise ArgumentError(path or "model", rule, type(layers[path]).__name__, fix)
    if not mixtures:
        raise ArgumentError("model", "holds no mixture", type(model).__name__, "mb.Mixture(gate, experts)")
    if at in mixtures:
        return mixtures[at]
    if at is None and len(mixtures) == 1:
        return next(iter(mixtures.values()))
    rule = "names no mixture" if at is not None else "needs the path of a mixture, for there are several"
    raise ArgumentError("at", rule, at, " or ".join(f"at={path!r}" for path in mixtures))


def _check_index(moe: Mixture | PositionMixture, index: int) -> None:
    if isinstance(index, bool) or index not in range(len(moe.experts)):
        rule = f"needs one of the {len(moe.experts)} experts, 0 … {len(moe.experts) - 1}"
        raise ArgumentError("index", rule, index, "index=0")


def _with_part(model: Model, part: nn.Module, new: nn.Module) -> Model:
    """The model with another module in a part's place; the modules around that one are new, all else is shared."""
    return _copied_around(model, part, {id(part): new})


def _copied_around(model: Model, part: nn.Module, memo: dict[int, Any]) -> Model:
    """A copy of the modules in which a part is, the part itself among them unless `memo` replaces it."""
    around = [module for module in model.modules() if any(inner is part for inner in module.modules())]
    shared = [module for module in model.modules() if all(module is not outer for outer in around)]
    tensors = [
        tensor for module in around for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    ]
    # deepcopy, because the modules around may know the part by other names than that of a child.
    memo |= {id(value): value for value in (*shared, *tensors) if id(value) not in memo}
    return copy.deepcopy(model, memo)


def _experts(moe: Mixture | PositionMixture) -> list[nn.Module]:
    """The experts as modules that another mixture can hold."""
    return moe.experts.unstacked() if isinstance(moe.experts, Stack) else list(moe.experts)


def _mixture(moe: AnyMixture, gate: nn.Module, experts: list[nn.Module], router: Router) -> AnyMixture:
    """The mixture with another gate, other experts and another router."""
    stacks = isinstance(moe.experts, Stack) and unstackable_reason(experts) is None
    # A subclass may have another constructor: copy its object, with other parts.
    attributes = [value for name, value in vars(moe).items() if not name.startswith("_")]
    copied = _copied_around(moe, moe, {id(value): value for value in (*moe.children(), *attributes)})
    copied.gate, copied.router = gate, router
    copied.experts = Stack(experts) if stacks else nn.ModuleList(experts)
    # Not through train(): shared parts keep their modes, which are the old mixture's too.
    copied.training = copied.experts.training = moe.training
    return copied


def _with_experts_and_gate(moe: AnyMixture, experts: list[nn.Module], rows: Rows, gate: nn.Module | None) -> AnyMixture:
    """The mixture with these experts, and a gate and a router for their number."""
    old_count, count = len(moe.experts), len(experts)
    router = _router_for(moe.router, count, rows)
    if gate is not None:
        return _mixture(moe, gate, experts, router)
    old_width, width = moe.router.gate_outputs(old_count), router.gate_outputs(count)
    blocks = old_width // old_count
    has_codes = any(isinstance(part, DSelectK) for part in router.modules())
    if has_codes or (old_width, width) != (blocks * old_count, blocks * count):
        rule = f"gives {type(moe.router).__name__} numbers that are not one or more for each expert"
        raise ArgumentError("gate", rule, old_width, f"gate=…, a new one that gives {width} numbers a row")

    def rows_of_blocks(values: Tensor, zero: bool) -> Tensor:
        return torch.cat([rows(block, zero) for block in values.chunk(blocks)])

    return _mixture(moe, _gate_for(moe.gate, old_width, width, rows_of_blocks), experts, router)


def _with_one_more(values: Tensor, zero: bool) -> Tensor:
    new_row = values.mean(0, keepdim=True)
    return torch.cat([values, torch.zeros_like(new_row) if zero else new_row])


def _router_for(router: Router, count: int, rows: Rows) -> Router:
    """The same router where no argument is the number of experts, else a router for the new number."""
    spec = describe(router)
    new_spec = _with_count(spec, count)
    if new_spec == spec:
        return router
    return _with_old_tensors(build(new_spec, "routers", dict(router.named_modules())), router, rows)


def _with_count(value: Any, count: int) -> Any:
    """A Spec with another number of experts wherever it names one."""
    if not isinstance(value, Mapping):
        return value
    changed = {name: _with_count(inner, count) for name, inner in value.items()}
    return changed | ({"experts": count} if isinstance(value.get("experts"), int) else {})


def _gate_for(gate: nn.Module, old_width: int, width: int, rows: Rows) -> nn.Module:
    """A gate that gives `width` numbers a row: made by its kind, or the gate with another last layer."""
    if any(reads_expert_outputs(part) or hasattr(part, "expert_classes") for part in gate.modules()):
        rule = "knows the experts by what they give or by their classes, and other experts need another gate"
        raise ArgumentError("gate", rule, type(gate).__name__, f"gate=…, a new one that gives {width} numbers a row")
    spec = describe(gate)
    if isinstance(spec.get("experts"), int):
        try:
            with torch.random.fork_rng(devices=()):
                wider = build({**spec, "experts": width}, room_of(gate))
        except ArgumentError as error:
            raise ArgumentError("gate", error.rule, error.value, f"gate=…, a new one for {width} experts") from None
        return _with_old_tensors(wider, gate, rows)
    # By its exact type: a layer whose weight is computed from other tensors has no rows to add to.
    layers = [part for part in gate.modules() if type(part) is nn.Linear and part.out_features == old_width]
    if not layers:
        rule = f"needs a linear layer that gives {old_width} numbers, for a row to be added or dropped"
        raise ArgumentError("gate", rule, type(gate).__name__, f"gate=…, a new one that gives {width} numbers a row")
    return _with_last_layer(gate, layers[-1], width, rows)


def _with_last_layer(gate: nn.Module, last: nn.Linear, width: int, rows: Rows) -> nn.Module:
    """The gate with another last layer; the modules around that layer are new, all else is shared."""
    memo: dict[int, Any] = {}
    copied = _copied_around(gate, last, memo)
    layer = memo[id(last)]
    layer.out_features = width
    layer.weight = _like(last.weight, rows(last.weight.detach(), last.bias is not None))
    if last.bias is not None:
        layer.bias = _like(last.bias, rows(last.bias.detach(), False))
    return copied


def _with_old_tensors(new: Any, old: nn.Module, rows: Rows) -> Any:
    """Put the old part's tensors and modes into the new one; tensors of another shape have rows for the experts."""
    for name, part in new.named_modules():
        old_part = old.get_submodule(name)
        part.training = old_part.training
        for table, old_table in ((part._parameters, old_part._parameters), (part._buffers, old_part._buffers)):
            for key, tensor in old_table.items():
                if tensor is None or tensor.shape == table[key].shape:
                    table[key] = tensor
                else:
                    zero = key == "weight" and old_part._parameters.get("bias") is not None
                    table[key] = _like(tensor, rows(tensor.detach(), zero))
    return new


def _like(tensor: Tensor, values: Tensor) -> Tensor:
    return nn.Parameter(values, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values
