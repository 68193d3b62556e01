"""The scores that routers are checked with."""

import torch
from torch import Tensor

from moebius.core.routing import Router

EXPERTS = 4
# Whether a router trains.
MODES = (True, False)


def make_scores(router: Router, rows: int, experts: int = EXPERTS, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random numbers of a gate, (T, G), as many for each row as the router takes; the same for the same T."""
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, router.gate_outputs(experts), generator=generator, dtype=torch.float64).to(dtype)
