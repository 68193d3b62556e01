"""Another number of experts: a mixture that exists, with one more, one less, or one exchanged.

Each gives a new mixture; the old one stays as it is and works. What is kept is shared, not copied: the other experts,
the combine, the gate but for what gives its scores. Training the one trains these parts of the other too
(`copy.deepcopy` beforehand makes them two). The experts of a `Stack` are copied: their new number needs another one,
which it gets where all are still equal.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from moebius.core.routing import Router
from moebius.core.stack import Stack, unstackable_reason
from moebius.kit.errors import ArgumentError
from moebius.layers.mixture import Mixture
from moebius.routers.dselect_k import DSelectK
from moebius.storage.structure import build_part, describe_part, room_of

# From the rows for the old experts, (E, …), those for the new ones; an additional one of zeros if the second says so.
Rows = Callable[[Tensor, bool], Tensor]


def add_expert(moe: Mixture, expert: nn.Module, gate: nn.Module | None = None) -> Mixture:
    """A mixture with one more expert, the last; the gate's scores for the others stay as they are.

    The gate's last layer gets a row for it, in every block of E rows that the router reads: weights of 0 and the mean
    of the others' biases, so that it begins with about an average score; where there is no bias, the mean of all rows.

    Arguments:
        moe: the mixture, which is left as it was.
        expert: any module whose outputs have the shape of the others'.
        gate: one for the new number of experts, to take the old one's place as it is.

    Raises:
        ArgumentError: a gate without such a layer, or made for its experts (`domain`), or a router whose codes change
            with their number (`dselect_k`); all of them can be given a `gate`.

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
    _check(moe)
    return _changed(moe, [*_experts(moe), expert.train(moe.training)], _with_one_more, gate)


def drop_expert(moe: Mixture, index: int, gate: nn.Module | None = None) -> Mixture:
    """A mixture without one of its experts; the gate's scores for the others stay as they are.

    Arguments:
        moe: the mixture, which is left as it was.
        index: the expert's, 0 … E − 1; those after it move up.
        gate: one for the new number of experts, to take the old one's place as it is.

    Raises:
        ArgumentError: no such expert, the only one, or a gate or router as for `add_expert`.

    Example:
        >>> import moebius as mb
        >>> moe = mb.Mixture(mb.gates.Linear(4, 3), [mb.experts.Linear(4, 3) for _ in range(3)])
        >>> drop_expert(moe, 1).experts[1] is moe.experts[2]
        True

    Reference: ours.
    """
    _check(moe, index)
    if len(moe.experts) == 1:
        raise ArgumentError(
            "index", "names the only expert, and a mixture has at least one", index, "mb.replace_expert"
        )
    kept = [number for number in range(len(moe.experts)) if number != index]
    experts = _experts(moe)
    return _changed(moe, [experts[number] for number in kept], lambda values, zero: values[kept], gate)


def replace_expert(moe: Mixture, index: int, expert: nn.Module) -> Mixture:
    """A mixture with another module in an expert's place; the gate and the router are the same ones.

    Arguments:
        moe: the mixture, which is left as it was.
        index: the expert's, 0 … E − 1.
        expert: any module whose outputs have the shape of the others'.

    Raises:
        ArgumentError: no such expert.

    Example:
        >>> import torch, moebius as mb
        >>> moe = mb.Mixture(mb.gates.Linear(4, 2), [mb.experts.Linear(4, 3) for _ in range(2)])
        >>> replace_expert(moe, 0, torch.nn.Linear(4, 3)).gate is moe.gate
        True

    Reference: ours.
    """
    _check(moe, index)
    experts = _experts(moe)
    experts[index] = expert.train(moe.training)
    return _mixture(moe, moe.gate, experts, moe.router)


def _check(moe: Mixture, index: int = 0) -> None:
    if type(moe) is not Mixture:
        raise ArgumentError("moe", "needs a Mixture itself, not a module around it", type(moe).__name__)
    if isinstance(index, bool) or index not in range(len(moe.experts)):
        raise ArgumentError("index", f"needs one of the {len(moe.experts)} experts, 0 … {len(moe.experts) - 1}", index)


def _experts(moe: Mixture) -> list[nn.Module]:
    """The experts as modules that another mixture can hold."""
    return moe.experts.unstacked() if isinstance(moe.experts, Stack) else list(moe.experts)


def _mixture(moe: Mixture, gate: nn.Module, experts: list[nn.Module], router: Router) -> Mixture:
    stacks = isinstance(moe.experts, Stack) and unstackable_reason(experts) is None
    made = Mixture(gate, Stack(experts) if stacks else experts, router, moe.combine, moe.execution)
    # Not through train(): the parts that are kept have their modes, and another mixture's.
    made.training = made.experts.training = moe.training
    return made


def _changed(moe: Mixture, experts: list[nn.Module], rows: Rows, gate: nn.Module | None) -> Mixture:
    before, now = len(moe.experts), len(experts)
    router = _router_for(moe.router, now, rows)
    if gate is not None:
        return _mixture(moe, gate, experts, router)
    outputs, wanted = moe.router.gate_outputs(before), router.gate_outputs(now)
    blocks = outputs // before
    coded = any(isinstance(part, DSelectK) for part in router.modules())
    if coded or (outputs, wanted) != (blocks * before, blocks * now):
        rule = f"gives {type(moe.router).__name__} numbers that are not one or more for each expert"
        raise ArgumentError("gate", rule, outputs, f"gate=…, a new one that gives {wanted} numbers a row")

    def in_blocks(values: Tensor, zero: bool) -> Tensor:
        return torch.cat([rows(block, zero) for block in values.chunk(blocks)])

    return _mixture(moe, _gate_for(moe.gate, outputs, wanted, in_blocks), experts, router)


def _with_one_more(values: Tensor, zero: bool) -> Tensor:
    one_more = values.mean(0, keepdim=True)
    return torch.cat([values, torch.zeros_like(one_more) if zero else one_more])


def _router_for(router: Router, experts: int, rows: Rows) -> Router:
    """The same router where it does not know the number of experts, else one that is made for the new number."""
    said = describe_part(router)
    changed = _with_experts(said, experts)
    if changed == said:
        return router
    made = build_part(changed, "routers", dict(router.named_modules()))
    return _take_over(made, router, rows)


def _with_experts(value: Any, experts: int) -> Any:
    if not isinstance(value, Mapping):
        return value
    changed = {name: _with_experts(inner, experts) for name, inner in value.items()}
    return changed | ({"experts": experts} if isinstance(value.get("experts"), int) else {})


def _gate_for(gate: nn.Module, outputs: int, wanted: int, rows: Rows) -> nn.Module:
    said = describe_part(gate)
    if isinstance(said.get("experts"), int):
        try:
            with torch.random.fork_rng(devices=()):
                made = build_part({**said, "experts": wanted}, room_of(gate))
        except ArgumentError as error:
            raise ArgumentError("gate", error.rule, error.value, f"gate=…, a new one for {wanted} experts") from None
        return _take_over(made, gate, rows)
    # By its exact type: one whose weight is computed from other tensors has no rows to add to.
    linears = [part for part in gate.modules() if type(part) is nn.Linear and part.out_features == outputs]
    if not linears:
        rule = f"needs a linear layer that gives {outputs} numbers, for a row to be added or dropped"
        raise ArgumentError("gate", rule, type(gate).__name__, f"gate=…, a new one that gives {wanted} numbers a row")
    return _with_outputs(gate, linears[-1], wanted, rows)


def _with_outputs(gate: nn.Module, last: nn.Linear, wanted: int, rows: Rows) -> nn.Module:
    """The gate with another last layer; all else is shared but the modules around that one."""
    around = [part for part in gate.modules() if any(inner is last for inner in part.modules())]
    shared = [part for part in gate.modules() if all(part is not one for one in around)]
    tensors = [tensor for part in around for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False))]
    memo: dict[int, Any] = {id(one): one for one in (*shared, *tensors)}
    # deepcopy, because the modules around may know the layer by other names than that of a child.
    made = copy.deepcopy(gate, memo)
    layer = memo[id(last)]
    layer.out_features = wanted
    layer.weight = _like(last.weight, rows(last.weight.detach(), last.bias is not None))
    if last.bias is not None:
        layer.bias = _like(last.bias, rows(last.bias.detach(), False))
    return made


def _take_over(made: Any, old: nn.Module, rows: Rows) -> Any:
    """The old one's tensors and modes in what was made anew; only those of another shape have rows for the experts."""
    for name, part in made.named_modules():
        before = old.get_submodule(name)
        part.training = before.training
        for own, theirs in ((part._parameters, before._parameters), (part._buffers, before._buffers)):
            for key, tensor in theirs.items():
                if tensor is None or tensor.shape == own[key].shape:
                    own[key] = tensor
                else:
                    zero = key == "weight" and before._parameters.get("bias") is not None
                    own[key] = _like(tensor, rows(tensor.detach(), zero))
    return made


def _like(tensor: Tensor, values: Tensor) -> Tensor:
    return nn.Parameter(values, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values
