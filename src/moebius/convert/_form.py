"""What a block of feed-forward experts computes, without its weights, and the layer that computes it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from moebius.core.routing import Router
from moebius.core.stack import Stack
from moebius.experts.ffn import FFN
from moebius.gates.float32_linear import Float32Linear
from moebius.gates.linear import Linear
from moebius.kit.errors import ArgumentError
from moebius.layers.mixture import Mixture
from moebius.layers.shared_expert import SharedExpert
from moebius.layers.sparse_ffn import SparseFFN
from moebius.routers.group_top_k import GroupTopK
from moebius.routers.top_k import TopK


@dataclass(frozen=True)
class Form:
    """What a block computes.

    Arguments:
        dim: D, width of a token.
        hidden: width inside each expert.
        experts: E.
        activation: of the experts: swiglu or geglu.
        k, normalisation, renormalise, groups, open_groups, group_best, scale: of `GroupTopK`.
        has_bias: whether the router has a bias for each expert that affects the choice alone.
        is_float32_gate: whether scores are computed in float32 whatever the format.
        shared: width of the expert that all tokens share, 0 for none.
        has_shared_bias: whether its layers have biases.
        has_shared_gate: whether its output is weighted by a sigmoid of its own.
    """

    dim: int
    hidden: int
    experts: int
    activation: str
    k: int
    normalisation: str
    renormalise: bool
    groups: int = 1
    open_groups: int = 1
    group_best: int = 1
    scale: float = 1.0
    has_bias: bool = False
    is_float32_gate: bool = False
    shared: int = 0
    has_shared_bias: bool = False
    has_shared_gate: bool = False

    @property
    def is_sparse_ffn(self) -> bool:
        """Whether `SparseFFN` can compute it."""
        has_other_shared = self.shared % self.hidden or self.has_shared_bias or self.has_shared_gate
        return not (has_other_shared or self.is_float32_gate)


def make_layer(form: Form) -> nn.Module:
    """A layer of this form on the meta device: `SparseFFN` where that suffices, else a mixture and a shared expert."""
    with torch.device("meta"):
        if form.is_sparse_ffn:
            router = _make_router(form)
            router, shared = None if _is_default(router) else router, form.shared // form.hidden
            return SparseFFN(form.dim, form.hidden, form.experts, form.k, form.activation, False, shared, router)
        gate = (Float32Linear if form.is_float32_gate else Linear)(form.dim, form.experts, bias=False)
        stack = Stack.of(lambda: FFN(form.dim, form.hidden, form.activation, bias=False), form.experts)
        mixture = Mixture(gate, stack, _make_router(form))
        if not form.shared:
            return mixture
        shared = FFN(form.dim, form.shared, form.activation, form.has_shared_bias)
        return SharedExpert(mixture, shared, Linear(form.dim, 1, bias=False) if form.has_shared_gate else None)


def read_layer(layer: nn.Module) -> Form:
    """The form of a layer.

    Raises:
        ArgumentError: it is none that `make_layer` makes.
    """
    mixture, shared, shared_gate = layer_parts(layer)
    expert = mixture.experts.template if isinstance(mixture.experts, Stack) else None
    gate, router = mixture.gate, mixture.router
    if not isinstance(expert, FFN) or expert.bias:
        raise refusal(layer, "experts need to be an mb.Stack of mb.experts.FFN without biases")
    if type(gate) not in (Linear, Float32Linear) or gate.bias:
        raise refusal(layer, "its gate needs to be mb.gates.Linear or Float32Linear, without a bias")
    if not isinstance(router, TopK) or type(router) not in (TopK, GroupTopK):
        raise refusal(layer, "its router needs to be TopK or GroupTopK")
    if shared is not None and (type(shared) is not FFN or shared.activation != expert.activation):
        raise refusal(layer, "its shared expert needs to be an mb.experts.FFN with the activation of the others")
    if shared_gate is not None and (type(shared_gate) is not Linear or shared_gate.bias):
        raise refusal(layer, "the gate of its shared expert needs to be an mb.gates.Linear without a bias")
    return Form(
        dim=expert.features,
        hidden=expert.hidden,
        experts=mixture.count,
        activation=expert.activation,
        k=round(router.k),
        normalisation=router.normalisation,
        renormalise=router.renormalise,
        has_bias=router.bias is not None,
        is_float32_gate=type(gate) is Float32Linear,
        shared=0 if shared is None else shared.hidden,
        has_shared_bias=shared is not None and shared.bias,
        has_shared_gate=shared_gate is not None,
        **_group_settings(router),
    )


def layer_parts(layer: nn.Module) -> tuple[Mixture, nn.Module | None, nn.Module | None]:
    """A layer's mixture, its shared expert and the gate of that."""
    if isinstance(layer, SparseFFN):
        return layer.mixture, layer.block, None
    if isinstance(layer, SharedExpert) and isinstance(layer.layer, Mixture):
        return layer.layer, layer.expert, layer.gate
    if isinstance(layer, SharedExpert) and isinstance(layer.layer, SparseFFN) and layer.layer.block is None:
        return layer.layer.mixture, layer.expert, layer.gate
    if isinstance(layer, Mixture):
        return layer, None, None
    raise refusal(layer, "needs to be an mb.layers.SparseFFN, an mb.Mixture or an mb.layers.SharedExpert of these")


def refusal(layer: nn.Module, rule: str) -> ArgumentError:
    """The error for a layer that no block can hold."""
    fix = "mb.convert.to_transformers(mb.convert.from_transformers(block), like=block)"
    return ArgumentError("layer", rule, type(layer).__name__, fix)


def _make_router(form: Form) -> Router:
    if form.groups == 1 and form.scale == 1 and not form.has_bias:
        return TopK(form.k, form.normalisation, form.renormalise)
    return GroupTopK(
        form.k,
        form.groups,
        form.open_groups,
        form.group_best,
        form.normalisation,
        form.renormalise,
        form.scale,
        experts=form.experts if form.has_bias else None,
    )


def _group_settings(router: TopK) -> dict[str, Any]:
    """Groups and scale; what does not matter where all groups are open is as `Form` has it."""
    if not isinstance(router, GroupTopK):
        return {}
    if router.open_groups == router.groups:
        return {"scale": router.scale}
    names = ("groups", "open_groups", "group_best", "scale")
    return {name: getattr(router, name) for name in names}


def _is_default(router: Router) -> bool:
    """Whether `SparseFFN` would make this router by itself."""
    return type(router) is TopK and router.normalisation == "softmax" and router.renormalise
