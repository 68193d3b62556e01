"""Computes the outputs of frozen parts for the rows of a split once."""

from collections import deque
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from moebius.core.output_cache import OutputCache
from moebius.core.routing import Router
from moebius.core.stack import Stack
from moebius.experts.adapter import Adapter
from moebius.gates.class_mass import ClassMass
from moebius.kit.files import atomic_path
from moebius.lab.data.split import Split
from moebius.lab.training.call_model import ModelCall, splits_inputs
from moebius.lab.training.evaluation import part_outputs
from moebius.lab.training.mixture_parts import expert_pools, gate_modules, towers_of
from moebius.layers.cgc import CGC
from moebius.layers.mixture import Mixture
from moebius.layers.multi_gate_mixture import MultiGateMixture
from moebius.layers.ple import PLE
from moebius.layers.position_mixture import PositionMixture

# Most bytes of one part's outputs for a split; feature maps of large sets would crowd out everything else.
MOST_BYTES = 1 << 30


class OutputCaches:
    """Makes an output cache for each split, for one model.

    Rows are computed in the split's order, in pieces of one size: on one machine the same bits whoever computes
    them, and when.

    Arguments:
        call: the model; the outputs of its outermost frozen adapters are cached.
        store: (adapter, name of a split) → the file that keeps its outputs for other runs; None for no file.
    """

    def __init__(
        self,
        call: ModelCall,
        store: Callable[[nn.Module, str], Path | None] = lambda part, split: None,
    ):
        self.call, self.store = call, store
        self.parts = cacheable_parts(call.model) if call.runs == 1 else []
        self.caches: dict[str, OutputCache] = {}

    def cache_of(self, split: Split, name: str) -> OutputCache:
        """The outputs of the frozen parts for a split; `name` tells it from every other one, also between runs."""
        if name not in self.caches:
            # A model that takes several inputs by itself tells nobody what its parts get of them.
            is_shared = isinstance(split.images, Tensor) or splits_inputs(self.call.model, split.images)
            cache, waiting = OutputCache(), deque(self.parts if is_shared else ())
            deferrals = 0
            while waiting:
                part = waiting.popleft()
                # Other processes may be computing the same: do what they leave first, and wait for them last.
                table = self._table(part, split, name, wait=deferrals >= len(waiting) + 1)
                if table is None:
                    waiting.append(part)
                    deferrals += 1
                    continue
                deferrals = 0
                if table.numel():
                    cache.tables[part] = table
            self.caches[name] = cache
        return self.caches[name]

    def _table(self, part: Adapter, split: Split, name: str, wait: bool) -> Tensor | None:
        """The part's outputs; empty where they are too many to keep; None while another process computes them."""
        path = self.store(part, name)
        if path is None:
            return self._compute(part, split)
        stored = _read_table(path, split)
        if stored is not None:
            return stored
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path.with_name(f".{path.name}.lock"), timeout=-1 if wait else 0):
                stored = _read_table(path, split)
                if stored is not None:
                    return stored
                table = self._compute(part, split)
                if table.numel():
                    with atomic_path(path, sync=False) as temporary:
                        save_file({"outputs": table.cpu().contiguous()}, temporary)
                return table
        except Timeout:
            return None

    @torch.no_grad()
    def _compute(self, part: Adapter, split: Split) -> Tensor:
        pieces: list[Tensor] = []
        for piece in part_outputs(part, split, self.call):
            if piece[:1].nbytes * len(split) > MOST_BYTES:
                return piece[:0]
            pieces.append(piece)
        return torch.cat(pieces)


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


def _read_table(path: Path, split: Split) -> Tensor | None:
    try:
        table = load_file(path, device=str(split.device))["outputs"]
    except (OSError, SafetensorError, KeyError):
        return None
    return table if len(table) == len(split) else None
