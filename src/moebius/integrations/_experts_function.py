"""The experts of transformers' models, computed by the executions of this library."""

import functools
from typing import Any

import torch
from torch import Tensor, nn

from moebius.core.routing import Selection
from moebius.execution._few_rows import few_ffn_outputs
from moebius.execution._ffn import FFNWeights, run_weights
from moebius.execution._segments.choice import padding_reason
from moebius.execution._weighted_rows import sum_by_row

NAME = "moebius"
# What transformers computes experts with that are of another form, and all experts on a GPU; and in which formats.
OTHERWISE, FORMATS = "grouped_mm", (torch.float32, torch.bfloat16, torch.float16)
# Class of an activation in transformers → the gated activation of the operator.
ACTIVATIONS = {"SiLUActivation": "swiglu", "SiLU": "swiglu", "GELUActivation": "geglu"}
# Up to this number of assignments each reads its expert's weights where they are.
FEW = 16


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
    activation = None if hidden_states.is_cuda else gated_activation(self)
    if activation is None:
        return _otherwise(self)(self, hidden_states, top_k_index, top_k_weights)
    rows, k = top_k_index.shape
    row_A = torch.arange(rows, device=hidden_states.device).repeat_interleave(k)
    expert_A, weight_A, dtype = top_k_index.reshape(-1), top_k_weights.reshape(-1), self.gate_up_proj.dtype
    bias = (self.gate_up_proj_bias, self.down_proj_bias) if self.has_bias else (None, None)
    weights = FFNWeights(self.gate_up_proj, bias[0], self.down_proj, bias[1], activation, dtype)
    if len(expert_A) <= FEW and hidden_states.dtype == dtype and not torch.is_grad_enabled():
        experts = expert_A.tolist()
        if max(experts, default=self.num_experts) < self.num_experts:
            return sum_by_row(few_ffn_outputs(weights, hidden_states[row_A], experts), row_A, weight_A, rows)
    selection = Selection(row_A, expert_A, weight_A, expert_A < self.num_experts)
    padded = padding_reason(dtype, len(row_A), self.num_experts) is not None
    return run_weights(weights, hidden_states, selection, weight_A, padded).to(hidden_states.dtype)


def gated_activation(experts: Any) -> str | None:
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
    return ACTIVATIONS.get(type(experts.act_fn).__name__) if is_common and are_plain else None


def _otherwise(experts: Any) -> Any:
    """What transformers computes these experts with; the class's own loop where it has nothing for the format."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    dtype = next(experts.parameters()).dtype
    return ALL_EXPERTS_FUNCTIONS[OTHERWISE] if dtype in FORMATS else type(experts).forward.__wrapped__


@functools.cache
def _default_gate() -> Any:
    from transformers.integrations import moe

    return moe._default_apply_gate
