"""The experts of transformers' models, computed by the executions of this library."""

import functools
from typing import Any

import torch
from torch import Tensor, nn

from moebius.execution._order import sort_by_expert

NAME = "moebius"
# What transformers computes experts with that are of another form, and all experts on a GPU; and in which formats.
OTHERWISE, FORMATS = "grouped_mm", (torch.float32, torch.bfloat16, torch.float16)
# Class of an activation in transformers → the gated activation of the operator.
_ACTIVATIONS = {"SiLUActivation": "swiglu", "SiLU": "swiglu", "GELUActivation": "geglu"}


def register_experts_function() -> str:
    """Add the experts implementation "moebius" to transformers."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(NAME, experts_forward)
    return NAME


def experts_forward(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """The weighted sum of the chosen experts' outputs for each row; the arguments are those of transformers.

    Arguments:
        self: module with the stacked weights of all experts.
        hidden_states: (T, D).
        top_k_index: (T, k), the chosen experts; E for none.
        top_k_weights: (T, k).
    """
    activation = None if hidden_states.is_cuda else _activation(self)
    if activation is None:
        return _otherwise(self)(self, hidden_states, top_k_index, top_k_weights)
    # Imported here: defining an operator imports much of torch's compiler.
    from moebius.execution._sorted_ffn import sorted_ffn

    rows, k = top_k_index.shape
    row_A = torch.arange(rows, device=hidden_states.device).repeat_interleave(k)
    expert_A = top_k_index.reshape(-1)
    order, counts = sort_by_expert(expert_A, expert_A < self.num_experts, self.num_experts)
    bias = (self.gate_up_proj_bias, self.down_proj_bias) if self.has_bias else (None, None)
    weights = (self.gate_up_proj, bias[0], self.down_proj, bias[1])
    weight_A, dtype = top_k_weights.reshape(-1), self.gate_up_proj.dtype
    keep = torch.is_grad_enabled()
    y, *_ = sorted_ffn(hidden_states, *weights, row_A, weight_A, order, counts, activation, dtype, keep)
    return y.to(hidden_states.dtype)


def _activation(experts: Any) -> str | None:
    """The operator's name for what experts of the common form compute between their products; None for another form."""
    is_common = (
        experts.has_gate
        and experts.is_concatenated
        and not experts.is_transposed
        and not experts.has_post_expert_norm
        and experts._apply_gate.__func__ is _default_gate()
    )
    weights = [getattr(experts, name, None) for name in ("gate_up_proj", "down_proj")]
    are_plain = all(type(weight) in (nn.Parameter, Tensor) for weight in weights)
    return _ACTIVATIONS.get(type(experts.act_fn).__name__) if is_common and are_plain else None


def _otherwise(experts: Any) -> Any:
    """What transformers computes these experts with; the class's own loop where it has nothing for the format."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    dtype = next(experts.parameters()).dtype
    return ALL_EXPERTS_FUNCTIONS[OTHERWISE] if dtype in FORMATS else type(experts).forward.__wrapped__


@functools.cache
def _default_gate() -> Any:
    from transformers.integrations import moe

    return moe._default_apply_gate
