"""The parts of a model whose outputs for a row never change."""

from itertools import chain

from torch import nn

from moebius.core.routing import Router
from moebius.core.stack import Stack
from moebius.experts.adapter import Adapter
from moebius.gates.class_mass import ClassMass
from moebius.lab.training.mixture_parts import expert_pools, gate_modules, towers_of
from moebius.layers.cgc import CGC
from moebius.layers.mixture import Mixture
from moebius.layers.multi_gate_mixture import MultiGateMixture
from moebius.layers.ple import PLE
from moebius.layers.position_mixture import PositionMixture

# Most bytes of one part's outputs for a split; feature maps of large sets would crowd out everything else.
MOST_BYTES = 1 << 30


def cacheable_parts(model: nn.Module) -> list[Adapter]:
    """The frozen adapters whose outputs for a row never change, the outermost ones and each once.

    These are gates and experts of the model, of mixtures in it and of parts that leave their input as it is: a
    module behind another layer, such as a tower, does not receive a row of the data. An adapter in which a router lets
    rows depend on each other is not among them.
    """
    cacheable: dict[Adapter, None] = {}
    excluded: set[nn.Module] = set()
    waiting = [model]
    while waiting:
        module = waiting.pop(0)
        if isinstance(module, Adapter) and module.frozen:
            cacheable |= {module: None} if _has_independent_rows(module) else {}
            excluded.update(module.network.modules())
        elif isinstance(module, Adapter | ClassMass) and _leaves_input(module):
            waiting.insert(0, module.network)
        elif isinstance(module, Mixture | PositionMixture | MultiGateMixture | CGC):
            # Towers, and levels behind the first, do not receive a row of the data.
            excluded.update(part for tower in towers_of(module) for part in tower.modules())
            # The modules that a stack gives one by one are views, which no later step would look up.
            pools = [pool for pool in expert_pools(module) if not isinstance(pool, Stack)]
            waiting = [*gate_modules(module), *chain.from_iterable(pools), *waiting]
        elif isinstance(module, PLE):
            excluded.update(part for level in module.levels[1:] for part in level.modules())
            waiting.insert(0, module.levels[0])
        else:
            excluded.update(module.modules())
    return [module for module in cacheable if module not in excluded]


def _leaves_input(part: Adapter | ClassMass) -> bool:
    """Whether the network of a part gets the rows as the part gets them."""
    return isinstance(part, ClassMass) or (part.size, part.channels, part.transform) == (None, None, None)


def _has_independent_rows(part: nn.Module) -> bool:
    return all(module.rows_independent for module in part.modules() if isinstance(module, Router))
