"""Computing once what frozen parts say of the rows of a split."""

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from moebius.core.output_cache import OutputCache
from moebius.core.stack import Stack
from moebius.experts.adapter import Adapter
from moebius.kit.files import atomic_path
from moebius.lab.data.split import Split
from moebius.lab.training.evaluation import part_outputs
from moebius.layers.mixture import Mixture

# What one part's outputs for a split may take; feature maps of large sets would crowd out everything else.
MOST_BYTES = 1 << 30


class OutputCaches:
    """Makes memories of splits for one model.

    Rows are computed in the split's order, in pieces of one size: on one machine the same bits whoever computes
    them, and when.

    Arguments:
        model: its outermost frozen adapters are remembered.
        store: where the outputs of an adapter for the split of this name are kept, for other runs to share; None for
            nowhere.
        autocast: in which the model computes.
        channels_last: layout of the images.
    """

    def __init__(
        self,
        model: nn.Module,
        store: Callable[[nn.Module, str], Path | None] = lambda part, split: None,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
        channels_last: bool = False,
    ):
        self.store, self.autocast, self.channels_last = store, autocast, channels_last
        self.parts = cacheable_parts(model)
        self.memories: dict[str, OutputCache] = {}

    def of(self, split: Split, name: str) -> OutputCache:
        """What the frozen parts say of a split; `name` tells it from every other one, also between runs."""
        if name not in self.memories:
            memory, waiting = OutputCache(), deque(self.parts)
            turns = 0
            while waiting:
                part = waiting.popleft()
                # Others may be computing the same: take up what they leave first, wait for them last.
                table = self._table(part, split, name, patient=turns >= len(waiting) + 1)
                if table is None:
                    waiting.append(part)
                    turns += 1
                    continue
                turns = 0
                if table.numel():
                    memory.tables[part] = table
            self.memories[name] = memory
        return self.memories[name]

    def _table(self, part: Adapter, split: Split, name: str, patient: bool) -> Tensor | None:
        """The part's outputs; none at all where they are too many to keep; None while another process computes them."""
        path = self.store(part, name)
        if path is None:
            return self._computed(part, split)
        found = _read(path, split)
        if found is not None:
            return found
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path.with_name(f".{path.name}.lock"), timeout=-1 if patient else 0):
                found = _read(path, split)
                if found is not None:
                    return found
                table = self._computed(part, split)
                if table.numel():
                    with atomic_path(path, sync=False) as temporary:
                        save_file({"outputs": table.cpu().contiguous()}, temporary)
                return table
        except Timeout:
            return None

    @torch.no_grad()
    def _computed(self, part: Adapter, split: Split) -> Tensor:
        pieces: list[Tensor] = []
        for piece in part_outputs(part, split, self.channels_last, self.autocast):
            if piece[:1].nbytes * len(split) > MOST_BYTES:
                return piece[:0]
            pieces.append(piece)
        return torch.cat(pieces)


def cacheable_parts(model: nn.Module) -> list[Adapter]:
    """The frozen adapters whose outputs for a row never change, the outermost ones and each once.

    Those are gates and experts of the model, of mixtures in it and of adapters that leave their input as it is: what
    stands behind another layer sees no row of the data. Nor is an adapter among them in which a router lets rows depend
    on each other.
    """
    found: dict[Adapter, None] = {}
    elsewhere: set[nn.Module] = set()
    waiting = [model]
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, Adapter) and part.frozen:
            found |= {part: None} if _row_by_row(part) else {}
            elsewhere.update(part.network.modules())
        elif isinstance(part, Adapter) and (part.size, part.channels, part.transform) == (None, None, None):
            waiting.insert(0, part.network)
        elif isinstance(part, Mixture):
            # What a stack gives one by one are views, which nobody would ask again.
            experts = [] if isinstance(part.experts, Stack) else part.experts
            waiting = [part.gate, *experts, *waiting]
        else:
            elsewhere.update(part.modules())
    return [part for part in found if part not in elsewhere]


def _row_by_row(part: nn.Module) -> bool:
    return all(module.router.rows_independent for module in part.modules() if isinstance(module, Mixture))


def _read(path: Path, split: Split) -> Tensor | None:
    try:
        table = load_file(path, device=str(split.labels.device))["outputs"]
    except (OSError, SafetensorError, KeyError):
        return None
    return table if len(table) == len(split) else None
