"""Reads what a mixture-of-experts block of transformers computes."""

import functools
import importlib
import inspect
from typing import Any

from torch import nn

from moebius.convert._form import Form
from moebius.integrations._experts_function import ACTIVATIONS, gated_activation
from moebius.kit.errors import ArgumentError, MissingExtraError

# Model and class whose forward says what a class computes. The copies in other models (GLM-4-MoE, dots.llm1, FlexOlmo,
# Qwen3-Next …) have the same code.
_BLOCKS = (
    "mixtral.MixtralSparseMoeBlock",
    "olmoe.OlmoeSparseMoeBlock",
    "qwen3_moe.Qwen3MoeSparseMoeBlock",
    "qwen2_moe.Qwen2MoeSparseMoeBlock",
    "deepseek_v3.DeepseekV3MoE",
    "granitemoe.GraniteMoeMoE",
)
_SOFTMAX = (
    "mixtral.MixtralTopKRouter",
    "qwen2_moe.Qwen2MoeTopKRouter",
    "qwen3_vl_moe.Qwen3VLMoeTextTopKRouter",
    "granitemoe.GraniteMoeTopKRouter",
)
_SIGMOID_OF_GROUPS, _SOFTMAX_OF_GROUPS = "deepseek_v3.DeepseekV3TopkRouter", "deepseek_v2.DeepseekV2TopkRouter"
_EXPERTS, _SHARED = "mixtral.MixtralExperts", "qwen2_moe.Qwen2MoeMLP"
# Runs the experts of any model, whatever its routers.
OTHERWISE = "model.set_experts_implementation(mb.integrations.transformers.register())"


def read_block(block: Any) -> Form:
    """The form of a block.

    Raises:
        ArgumentError: it is none that can be converted.
    """
    if not is_block(block):
        raise _no_block(block)
    experts, router, shared = block.experts, block_router(block), block_shared(block)
    if getattr(experts, "_is_expert_parallel", False):
        raise _refusal("experts are sharded over processes", experts, "a model that is loaded without parallelism")
    activation = gated_activation(experts)
    if activation is None or not _computes(experts, _EXPERTS):
        raise _refusal("experts need to be plain SwiGLU or GeGLU blocks, their weights as loaded", experts, OTHERWISE)
    if getattr(block, "jitter_noise", 0):
        rule = "multiplies its input by noise while it trains, which no layer does here"
        raise ArgumentError("block.jitter_noise", rule, block.jitter_noise, "block.jitter_noise = 0")
    settings: dict[str, Any] = {}
    if shared is not None:
        shared_activation = _shared_activation(shared)
        if shared_activation != activation:
            raise _refusal("the shared expert needs to be a block like the others", shared, OTHERWISE)
        settings["shared"] = shared.down_proj.in_features
        settings["has_shared_bias"] = shared.down_proj.bias is not None
        settings["has_shared_gate"] = hasattr(block, "shared_expert_gate")
    count, double, dim = experts.gate_up_proj.shape
    form = Form(dim, double // 2, count, activation, router.top_k, **_router_settings(router), **settings)
    if form.renormalise and form.k == 1:
        rule = "a single expert's weight is renormalised to 1, so that the gate has no gradient"
        raise ArgumentError("block.top_k", rule, 1, OTHERWISE)
    if form.k > form.open_groups * (form.experts // form.groups):
        rule = "takes experts of closed groups too, because the open ones are fewer"
        raise ArgumentError("block.top_k", rule, form.k, OTHERWISE)
    return form


def is_block(module: nn.Module) -> bool:
    """Whether a module computes what one of the known classes computes."""
    return any(_computes(module, reference) for reference in _BLOCKS)


def block_router(block: Any) -> Any:
    """The router of a block."""
    return block.gate if hasattr(block, "gate") else block.router


def block_shared(block: Any) -> Any:
    """The expert of a block that all tokens share; None where it has none."""
    return getattr(block, "shared_experts", getattr(block, "shared_expert", None))


def _router_settings(router: Any) -> dict[str, Any]:
    """What of a form follows from the router."""
    if any(_computes(router, reference) for reference in _SOFTMAX):
        return {"normalisation": "softmax", "renormalise": getattr(router, "norm_topk_prob", True)}
    settings = {"is_float32_gate": True, "scale": float(getattr(router, "routed_scaling_factor", 1))}
    groups = {"groups": router.num_group, "open_groups": router.topk_group} if hasattr(router, "num_group") else {}
    if _computes(router, _SIGMOID_OF_GROUPS):
        settings |= {"normalisation": "sigmoid", "renormalise": router.norm_topk_prob, "has_bias": True}
        groups["group_best"] = 2
    elif _computes(router, _SOFTMAX_OF_GROUPS) and router.topk_method in ("greedy", "group_limited_greedy"):
        settings |= {"normalisation": "softmax", "renormalise": False}
        groups = groups if router.topk_method == "group_limited_greedy" else {}
    else:
        raise _refusal("its router is none that this library has", router, OTHERWISE)
    return {**settings, **(groups if groups.get("groups") != groups.get("open_groups") else {})}


def _shared_activation(shared: Any) -> str | None:
    """The gated activation of a shared expert; None where it is of another form."""
    layers = [getattr(shared, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    is_plain = _computes(shared, _SHARED) and all(type(layer) is nn.Linear for layer in layers)
    return ACTIVATIONS.get(type(shared.act_fn).__name__) if is_plain else None


def _computes(module: nn.Module, reference: str) -> bool:
    """Whether a module's forward has the code of a class of transformers, and no tool has replaced it."""
    reference_class = _reference(reference)
    if reference_class is None or "forward" in vars(module):
        return False
    return _code(type(module)) == _code(reference_class)


@functools.cache
def _code(module_class: type) -> tuple[Any, ...]:
    """What of a class's forward decides what it computes."""
    code = getattr(inspect.unwrap(module_class.forward), "__code__", None)
    return () if code is None else (code.co_code, code.co_names, code.co_consts, code.co_varnames)


@functools.cache
def _reference(name: str) -> type | None:
    """The class of transformers; None where this release has none of the name."""
    model, class_name = name.split(".")
    try:
        module = importlib.import_module(f"transformers.models.{model}.modeling_{model}")
    except ImportError as error:
        raise MissingExtraError(f"needs transformers 5 ({error})", "pip install 'transformers>=5'") from None
    return getattr(module, class_name, None)


def _no_block(module: nn.Module) -> ArgumentError:
    inner = next((name for name, part in module.named_modules() if name and is_block(part)), None)
    fix = OTHERWISE if hasattr(module, "experts") else "mb.convert.from_transformers(model.model.layers[0].mlp)"
    fix = fix if inner is None else f'mb.convert.from_transformers(model.get_submodule("{inner}"))'
    names = ", ".join(reference.partition(".")[2] for reference in _BLOCKS)
    return _refusal(f"needs to be a block that computes what one of these does: {names}", module, fix)


def _refusal(rule: str, part: nn.Module, fix: str) -> ArgumentError:
    return ArgumentError("block", rule, type(part).__name__, fix)
