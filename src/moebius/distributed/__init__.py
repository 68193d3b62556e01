"""Models on several processes: experts that processes share, their gradients, norms and optimizers."""

from moebius.distributed.all_to_all import AllToAll as AllToAll
from moebius.distributed.clip_grad_norm import clip_grad_norm_ as clip_grad_norm_
from moebius.distributed.dispatcher import Dispatcher as Dispatcher
from moebius.distributed.expert_parallel import expert_parallel as expert_parallel
from moebius.distributed.layout import expert_parameters as expert_parameters
from moebius.distributed.parameter_groups import parameter_groups as parameter_groups
from moebius.distributed.placement import Placement as Placement
from moebius.distributed.reduce_gradients import reduce_gradients as reduce_gradients

__all__ = [
    "AllToAll",
    "Dispatcher",
    "Placement",
    "clip_grad_norm_",
    "expert_parallel",
    "expert_parameters",
    "parameter_groups",
    "reduce_gradients",
]
