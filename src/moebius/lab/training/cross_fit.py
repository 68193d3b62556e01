"""Outputs of frozen networks for training rows that they were not trained on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from moebius.core.output_cache import OutputCache
from moebius.experts.adapter import Adapter
from moebius.kit.errors import ArgumentError
from moebius.lab.data.split import Split
from moebius.lab.training.cacheable_parts import MOST_BYTES, cacheable_parts
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.evaluation import part_outputs


@dataclass(frozen=True)
class CrossFit:
    """What gives the outputs of a model's frozen parts while it trains: for each row, networks trained without it.

    Arguments:
        folds: (T,), the fold of each training row, from 0.
        build: number of a fold → the model with stages that were trained without the rows of this fold, and its
            adapters by those of the model that trains.

    Reference: Wolpert 1992, "Stacked generalization", Neural Networks 5.
    """

    folds: Int64[Tensor, "T"]
    build: Callable[[int], tuple[nn.Module, Mapping[nn.Module, Adapter]]]

    @property
    def count(self) -> int:
        """Number of folds."""
        return int(self.folds.max()) + 1

    @torch.no_grad()
    def cache(self, call: ModelCall, split: Split) -> OutputCache:
        """The outputs of the frozen parts of a model for the training rows.

        Arguments:
            call: the model that trains.
            split: the training rows, or several augmented copies of them one after another.

        Raises:
            ArgumentError: the outputs are too many to keep.
        """
        cache, parts = OutputCache(), cacheable_parts(call.model)
        folds = self.folds.repeat(len(split) // len(self.folds)).to(split.device)
        for fold in range(self.count):
            model, adapters = self.build(fold)
            model.to(split.device)
            if call.channels_last:
                model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            rows = (folds == fold).nonzero().squeeze(1)
            for part in parts:
                first = 0
                for piece in part_outputs(adapters[part], split.take(rows), replace(call, model=model)):
                    if piece[:1].nbytes * len(split) > MOST_BYTES:
                        rule = f"needs all outputs of a stage in memory, {MOST_BYTES >> 20} MiB at the most"
                        raise ArgumentError("rows", rule, {"cross_fit": self.count}, "rows: held_out")
                    table = cache.tables.setdefault(part, piece.new_empty(len(split), *piece.shape[1:]))
                    table[rows[first : first + len(piece)]] = piece
                    first += len(piece)
        return cache


def uncached_stages(model: nn.Module, sources: Mapping[nn.Module, str]) -> list[str]:
    """Names of the stages of a model whose outputs are not computed once for each row.

    Arguments:
        model: with the adapters.
        sources: adapter → name of its stage.
    """
    inside = {module for part in cacheable_parts(model) for module in part.modules()}
    return list(dict.fromkeys(name for adapter, name in sources.items() if adapter not in inside))
