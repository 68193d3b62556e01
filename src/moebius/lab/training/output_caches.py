"""Computes the outputs of frozen parts for the rows of a split once."""

from collections import deque
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from moebius.core.output_cache import OutputCache
from moebius.experts.adapter import Adapter
from moebius.kit.commands import move_aside
from moebius.kit.errors import DamagedFileError, StudyError
from moebius.kit.files import atomic_path, write_errors
from moebius.kit.seals import SEAL, check_seal
from moebius.lab.data.split import Split
from moebius.lab.training.cacheable_parts import MOST_BYTES, cacheable_parts
from moebius.lab.training.call_model import ModelCall, splits_inputs
from moebius.lab.training.cross_fit import CrossFit
from moebius.lab.training.evaluation import part_outputs


class OutputCaches:
    """Makes an output cache for each split, for one model.

    Rows are computed in the split's order, in pieces of one size: on one machine the same bits whoever computes
    them, and when.

    Arguments:
        call: the model; the outputs of its outermost frozen adapters are cached.
        store: (adapter, name of a split) → the file that keeps its outputs for other runs; None for no file.
        cross_fit: what gives the outputs for training rows while the model trains; None for the adapters themselves.
    """

    def __init__(
        self,
        call: ModelCall,
        store: Callable[[nn.Module, str], Path | None] = lambda part, split: None,
        cross_fit: CrossFit | None = None,
    ):
        self.call, self.store, self.cross_fit = call, store, cross_fit
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

    def training_cache(self, split: Split, name: str) -> OutputCache:
        """The outputs that the model trains on; arguments as for `cache_of`."""
        if self.cross_fit is None:
            return self.cache_of(split, name)
        key = f"cross-fitted {name}"
        if key not in self.caches:
            self.caches[key] = self.cross_fit.cache(self.call, split)
        return self.caches[key]

    def _table(self, part: Adapter, split: Split, name: str, wait: bool) -> Tensor | None:
        """The part's outputs; empty where they are too many to keep; None while another process computes them."""
        path = self.store(part, name)
        if path is None:
            return self._compute(part, split)
        stored = _read_table(path, split)
        if stored is not None:
            return stored
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock")
        if lock.is_symlink():
            raise StudyError(f"{lock}: a lock may not be a link", move_aside(lock))
        try:
            with write_errors(lock):
                holder = FileLock(lock, timeout=-1 if wait else 0).acquire()
            with holder:
                stored = _read_table(path, split)
                if stored is not None:
                    return stored
                table = self._compute(part, split)
                if table.numel():
                    with atomic_path(path, seal=True) as temporary:
                        save_file({"outputs": table.cpu().contiguous()}, temporary, {"digest": SEAL})
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


def _read_table(path: Path, split: Split) -> Tensor | None:
    try:
        check_seal(path)
        table = load_file(path, device=str(split.device))["outputs"]
    except (OSError, SafetensorError, KeyError, DamagedFileError):
        return None
    return table if len(table) == len(split) else None
