"""Soft MoE: experts process mixtures of tokens."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.core.recording import outputs_wanted, record_routing
from moebius.core.row_context import RowContext, context_around, row_context
from moebius.core.stack import Stack
from moebius.execution._running import check_shapes, checked_output
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError
from moebius.routers.soft import Soft

# What a length is at least, so that tokens of zeros have gradients.
_SHORTEST = 1e-6


class SoftMoE(nn.Module):
    """Gives experts mixtures of a sequence's tokens, and each token a mixture of what they say.

    L_sep = x_s · φ_ep;  slot_ep = Σ_s softmax_s(L)_sep x_s;  y_s = Σ_ep softmax_ep(L)_sep expert_e(slot_ep)

    The slots are the experts' inputs. No token is dropped and no choice is made, so all of it has gradients, and what
    the experts cost depends on the number of slots alone. Sequences of a batch know nothing of each other; a token
    knows of all others of its own, so this is for encoders only.

    `record` sees a Routing of B·S rows, padding too: an expert's weight is what a token takes from its slots together
    (`probs` and `weights` are the combine weights summed over slots), and what the expert says of the token is the mean
    of its slots' outputs by those weights.

    Arguments:
        dim: D, width of a token.
        experts: any modules (B, slots, D) → (B, slots, O); O = D as a rule.
        slots: per expert. The paper's rule is about as many slots, of all experts together, as tokens.
        normalise: whether tokens and φ have length 1 in L, and L a learned scale, 1 at the start: without, the softmax
            becomes a choice as D grows.

    Shapes: x (B, S, D), mask (B, S) or (B,) → (B, S, O).

    Raises:
        ArgumentError: no experts, a size below 1, or tokens of another width.

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
            raise ArgumentError("experts", "needs at least one expert", list(self.experts))
        self.slots, self.normalise = positive_integer("slots", slots), normalise
        self.phi = nn.Parameter(torch.randn(dim, len(self.experts), slots) / dim**0.5)
        self.scale = nn.Parameter(torch.ones(())) if normalise else None

    def forward(self, x: Float[Tensor, "B S D"], mask: Tensor | None = None) -> Float[Tensor, "B S O"]:
        """Run the layer.

        Arguments:
            x: sequences of tokens.
            mask: True where a token, or a whole sequence, is real; also `with mb.context(mask=…)`. Padding is in no
                slot and in no record, and what it gets is 0.
        """
        frame = context_around(self).given(None, mask)
        mask, of_sequences = frame.mask, None
        if x.shape[-1] != self.dim:
            rule = f"the tokens, of shape {tuple(x.shape)}, have another width"
            raise ArgumentError("dim", rule, self.dim, f"SoftMoE(dim={x.shape[-1]}, …)")
        if mask is not None:
            if mask.shape not in (x.shape[:1], x.shape[:2]):
                rule = f"needs the axes of the tokens, {tuple(x.shape[:2])}"
                raise ArgumentError("mask", rule, tuple(mask.shape), "with mb.context(mask=None): …")
            mask = mask if mask.ndim == 2 else mask.unsqueeze(1).expand(x.shape[:2])
            frame, of_sequences = replace(frame, mask=mask), mask.any(1)
            x = x.masked_fill(~mask.unsqueeze(-1), 0)
        logits_BSEP = self._logits(x)
        dispatch_BSEP = _over_tokens(logits_BSEP, mask).to(x.dtype)
        combine_BSEP = logits_BSEP.flatten(2).softmax(-1).view_as(logits_BSEP)
        slots_BEPD = torch.einsum("bsep,bsd->bepd", dispatch_BSEP, x)
        pairs = zip(self.experts, slots_BEPD.unbind(1), strict=True)
        with row_context(replace(frame, mask=of_sequences)):  # the slots of a sequence without a real token are padding
            each = [checked_output(number, expert, slots) for number, (expert, slots) in enumerate(pairs)]
        outputs_BEPO = torch.stack(check_shapes(each, range(len(each))), 1)
        y = torch.einsum("bsep,bepo->bso", combine_BSEP.to(outputs_BEPO.dtype), outputs_BEPO)
        self._note(logits_BSEP, outputs_BEPO, frame)
        return y if mask is None else y.masked_fill(~mask.unsqueeze(-1), 0)

    def _logits(self, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S E P"]:
        x, phi = (value.float() if value.itemsize < 4 else value for value in (x, self.phi))
        if self.scale is not None:
            x = F.normalize(x, dim=-1, eps=_SHORTEST)
            phi = self.scale * F.normalize(phi, dim=0, eps=_SHORTEST)
        return torch.einsum("bsd,dep->bsep", x, phi)

    def _note(self, logits_BSEP: Tensor, outputs_BEPO: Tensor, frame: RowContext) -> None:
        of_tokens = frame.repeated(logits_BSEP.shape[1]) if frame.mask is None else frame.real(logits_BSEP)[0]
        # A softmax over the experts' logsumexp is the softmax over all slots, summed over each expert's.
        routing = Soft()(_real(frame, logits_BSEP.logsumexp(-1)))
        if of_tokens.rows is not None:
            routing = routing.at(of_tokens.rows)
        if outputs_wanted(self):
            within_BSEP = logits_BSEP.softmax(-1).to(outputs_BEPO.dtype)
            outputs = torch.einsum("bsep,bepo->bseo", within_BSEP, outputs_BEPO)
            routing = replace(routing, outputs=_real(frame, outputs))
        record_routing(self, routing)


def _real(frame: RowContext, values: Float[Tensor, "B S ..."]) -> Float[Tensor, "T ..."]:
    """Of values of tokens those of real ones, one beneath another."""
    return values.flatten(0, 1) if frame.mask is None else frame.real(values)[1]


def _over_tokens(logits_BSEP: Tensor, mask: Tensor | None) -> Tensor:
    """The softmax over the real tokens; a sequence of padding only has zeros, not NaN."""
    if mask is None:
        return logits_BSEP.softmax(1)
    mask = mask[..., None, None]
    return logits_BSEP.masked_fill(~mask, torch.finfo(logits_BSEP.dtype).min).softmax(1) * mask
