"""The router that chooses by a hash of the row, not by the gate's scores."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from moebius.core.precision import at_least_float32
from moebius.core.routing import Router, Routing
from moebius.kit.hashing import mix_bits
from moebius.routers._selecting import expert_counts, single_selection


class Hash(Router):
    """A fixed, pseudo-random expert for each row, with weight 1: a baseline for learned gates.

    e(x) = mix(key(x) ⊕ mix(seed)) mod E;  probs = softmax(scores)

    The key identifies the row: `context["key"]` (token or user numbers) where the mixture receives it, else a hash of
    the row's content, so that the same row has the same expert in every batch, epoch and process. Called without keys,
    the router hashes the bits of the scores.

    Arguments:
        seed: each seed gives other assignments.

    Shapes: scores (T, E), keys (T,) → Routing with T assignments, one per row.

    Example:
        >>> Hash()(torch.zeros(4, 3), torch.tensor([3, 4, 5, 3])).selection.expert_A
        tensor([2, 0, 1, 2])

    Reference: Roller, Sukhbaatar, Szlam, Weston 2021, Hash Layers For Large Sparse Models, section 3.2 (random hash).
    """

    trains_gate = False
    interchangeable = False
    needs_keys = True
    aux_names = ("assigned",)

    def __init__(self, seed: int = 0):
        super().__init__()
        self.seed = seed

    def max_active(self, experts: int) -> int:
        """1."""
        return 1

    def forward(self, scores: Float[Tensor, "T E"], keys: Int[Tensor, " T"] | None = None) -> Routing:
        """Route every row by its key."""
        probs = at_least_float32(scores).softmax(-1)
        if keys is None:
            keys = mix_bits(scores.detach().float().contiguous().view(torch.int32).long()).sum(-1)
        else:
            keys = keys.long()
        hash_T = mix_bits(keys ^ mix_bits(torch.full_like(keys, self.seed)))
        # Without the sign bit: remainders of negative numbers are rounded differently by different backends.
        expert_T = (hash_T & torch.iinfo(torch.int64).max) % scores.shape[1]
        aux = {"assigned": expert_counts(expert_T, scores.shape[1])}
        return Routing(scores, probs, *single_selection(expert_T, probs), aux=aux)
