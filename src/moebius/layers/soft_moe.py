"""Soft MoE: experts process mixtures of tokens."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.core.recording import is_recording_outputs, record_routing
from moebius.core.row_context import RowContext, calling_context, row_context
from moebius.core.stack import Stack
from moebius.execution._running import check_shapes, checked_output
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError
from moebius.routers.soft import Soft

# The least length that tokens and φ are divided by, so that tokens of zeros have finite gradients.
_LEAST_LENGTH = 1e-6


class SoftMoE(nn.Module):
    """Gives each expert mixtures of a sequence's tokens, and each token a mixture of the experts' outputs.

    L_sep = x_s · φ_ep;  slot_ep = Σ_s softmax_s(L)_sep x_s;  y_s = Σ_ep softmax_ep(L)_sep expert_e(slot_ep)

    The slots are the experts' inputs. No token is dropped and nothing is selected, so every weight has a gradient, and
    the experts' cost depends on the number of slots only. The sequences of a batch are independent of each other. A
    token's output depends on all tokens of its sequence, so the layer is for encoders only.

    `record` gets a Routing whose rows are the real tokens (all B·S without a mask). An expert's weight is the sum of
    the token's combine weights over the expert's slots (`probs` and `weights`), and the expert's output for the token
    is the mean of its slots' outputs, weighted by the combine weights.

    Arguments:
        dim: D, width of a token.
        experts: any modules (B, slots, D) → (B, slots, O); usually O = D.
        slots: P, slots per expert. The paper recommends about as many slots, over all experts, as tokens.
        normalise: whether tokens and φ are scaled to length 1 in L, and L multiplied by a learned scale that begins at
            1. Without, the softmax approaches a selection as D grows.

    Shapes: x (B, S, D), mask (B, S) or (B,) → (B, S, O).

    Raises:
        ArgumentError: there are no experts, a size is below 1, or the tokens have another width.

    Example:
        >>> layer = SoftMoE(dim=4, experts=[nn.Linear(4, 4) for _ in range(3)], slots=2)
        >>> layer(torch.zeros(5, 7, 4)).shape
        torch.Size([5, 7, 4])

    Reference: Puigcerver, Riquelme, Mustafa, Houlsby 2023, From Sparse to Soft Mixtures of Experts, algorithm 1, with
    the normalisation of section 2.3. The mask is ours.
    """

    def __init__(self, dim: int, experts: Iterable[nn.Module], slots: int = 1, normalise: bool = True):
        super().__init__()
        self.dim = positive_integer("dim", dim)
        self.experts = nn.ModuleList(experts.unstacked() if isinstance(experts, Stack) else experts)
        if not self.experts:
            raise ArgumentError("experts", "needs at least one expert", [], f"experts=[nn.Linear({dim}, {dim})]")
        self.slots, self.normalise = positive_integer("slots", slots), normalise
        self.phi = nn.Parameter(torch.randn(dim, len(self.experts), slots) / dim**0.5)
        self.scale = nn.Parameter(torch.ones(())) if normalise else None

    def forward(self, x: Float[Tensor, "B S D"], mask: Tensor | None = None) -> Float[Tensor, "B S O"]:
        """Run the layer.

        Arguments:
            x: sequences of tokens.
            mask: True where a token (B, S), or a whole sequence (B,), is real; also `with mb.context(mask=…)`. Padding
                enters no slot and no record, and its outputs are 0.
        """
        context = calling_context(self).with_values(None, mask)
        mask, sequence_mask = context.mask, None
        if x.shape[-1] != self.dim:
            rule = f"the tokens, of shape {tuple(x.shape)}, have another width"
            raise ArgumentError("dim", rule, self.dim, f"SoftMoE(dim={x.shape[-1]}, …)")
        if mask is not None:
            if mask.shape not in (x.shape[:1], x.shape[:2]):
                rule = f"needs the axes of the tokens, {tuple(x.shape[:2])}"
                raise ArgumentError("mask", rule, tuple(mask.shape), "with mb.context(mask=None): …")
            mask = mask if mask.ndim == 2 else mask.unsqueeze(1).expand(x.shape[:2])
            context, sequence_mask = replace(context, mask=mask), mask.any(1)
            x = x.masked_fill(~mask.unsqueeze(-1), 0)
        logits_BSEP = self._logits(x)
        dispatch_BSEP = _softmax_over_tokens(logits_BSEP, mask).to(x.dtype)
        combine_BSEP = logits_BSEP.flatten(2).softmax(-1).view_as(logits_BSEP)
        slots_BEPD = torch.einsum("bsep,bsd->bepd", dispatch_BSEP, x)
        pairs = zip(self.experts, slots_BEPD.unbind(1), strict=True)
        # The slots of a sequence without real tokens are padding.
        with row_context(replace(context, mask=sequence_mask)):
            outputs = [checked_output(number, expert, slots) for number, (expert, slots) in enumerate(pairs)]
        outputs_BEPO = torch.stack(check_shapes(outputs, range(len(outputs))), 1)
        y = torch.einsum("bsep,bepo->bso", combine_BSEP.to(outputs_BEPO.dtype), outputs_BEPO)
        self._record(logits_BSEP, outputs_BEPO, context)
        return y if mask is None else y.masked_fill(~mask.unsqueeze(-1), 0)

    def _logits(self, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S E P"]:
        x, phi = (value.float() if value.itemsize < 4 else value for value in (x, self.phi))
        if self.scale is not None:
            x = F.normalize(x, dim=-1, eps=_LEAST_LENGTH)
            phi = self.scale * F.normalize(phi, dim=0, eps=_LEAST_LENGTH)
        return torch.einsum("bsd,dep->bsep", x, phi)

    def _record(self, logits_BSEP: Tensor, outputs_BEPO: Tensor, context: RowContext) -> None:
        # A softmax over the experts' logsumexp is the softmax over all slots, summed over each expert's.
        routing = Soft()(_real_tokens(context, logits_BSEP.logsumexp(-1)))
        if context.mask is None:
            token_context = context.repeat_rows(logits_BSEP.shape[1])
        else:
            token_context = context.remove_padding(logits_BSEP)[0]
        if token_context.rows is not None:
            routing = routing.with_rows(token_context.rows)
        if is_recording_outputs(self):
            slot_weights_BSEP = logits_BSEP.softmax(-1).to(outputs_BEPO.dtype)
            outputs = torch.einsum("bsep,bepo->bseo", slot_weights_BSEP, outputs_BEPO)
            routing = replace(routing, outputs=_real_tokens(context, outputs))
        record_routing(self, routing)


def _real_tokens(context: RowContext, values: Float[Tensor, "B S ..."]) -> Float[Tensor, "T ..."]:
    """The values of the real tokens, with one batch axis."""
    return values.flatten(0, 1) if context.mask is None else context.remove_padding(values)[1]


def _softmax_over_tokens(logits_BSEP: Tensor, mask: Tensor | None) -> Tensor:
    """The softmax over a sequence's real tokens; all 0, not NaN, for a sequence that is padding only."""
    if mask is None:
        return logits_BSEP.softmax(1)
    mask = mask[..., None, None]
    return logits_BSEP.masked_fill(~mask, torch.finfo(logits_BSEP.dtype).min).softmax(1) * mask
