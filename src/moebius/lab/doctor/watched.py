"""Examining the mixtures of other libraries, by what their blocks compute."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from moebius.core.recording import Log
from moebius.core.routing import Routing
from moebius.integrations import Described
from moebius.integrations._watch import watch
from moebius.kit.errors import ArgumentError, MoebiusError
from moebius.kit.modes import evaluation_mode
from moebius.lab.data.nested import map_nested, tensors_of
from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.doctor.recorded import MOST_NUMBERS, OUTPUT_ROWS
from moebius.lab.illnesses._examination import Examination


def examine_watched(
    model: nn.Module, batches: Iterable[Any], rows: int, describe: Mapping[str, Described] | None = None
) -> list[Examination]:
    """Each gate of a model in which `mb.watch` finds mixtures; their rows are tokens.

    Known are the routes, the padding, whether rows go elsewhere in another order, and whether experts say the same.
    Losses are not: what a token's loss would be on other routes takes the whole network behind them.

    Arguments:
        model: in any mode, which it has again afterwards.
        batches: what the model is called with, one by one: mappings of its keywords, tuples of its arguments, or
            tensors. Sequences come first.
        rows: batches are read until a gate has so many.
        describe: as for `mb.watch`.

    Raises:
        ArgumentError: there are no batches.
        MoebiusError: no mixture is recognised.
    """
    pieces: dict[str, list[RoutedRows]] = {}
    moved: dict[str, list[Tensor]] = {}
    outputs: dict[str, Tensor] = {}
    with evaluation_mode(model), torch.inference_mode():
        for number, batch in enumerate(_until(batches, pieces, rows)):
            log, again = (_call(model, each, describe) for each in (batch, map_nested(batch, lambda x: x.flip(0))))
            sequences = len(next(tensors_of(batch)))
            for path, routings in log.items():
                for place, routing in enumerate(routings):
                    piece = _rows(routing, sequences)
                    pieces.setdefault(path, []).append(piece)
                    if place < len(again.get(path, ())):
                        moved.setdefault(path, []).append(
                            _moved(piece, _rows(again[path][place], sequences), sequences)
                        )
            if number == 0:
                outputs = _outputs(model, batch, describe)
    if not pieces:
        raise ArgumentError(
            "data", "needs batches", "none", "mb.diagnose(model, [tokenizer(texts, return_tensors='pt')])"
        )
    return [_examination(path, RoutedRows.join(pieces[path]), moved.get(path), outputs.get(path)) for path in pieces]


def _until(batches: Iterable[Any], pieces: Mapping[str, list[RoutedRows]], rows: int) -> Iterator[Any]:
    for batch in batches:
        yield dict(batch) if isinstance(batch, Mapping) else batch
        if pieces and max(sum(map(len, parts)) for parts in pieces.values()) >= rows:
            return


def _call(model: nn.Module, batch: Any, describe: Mapping[str, Described] | None, outputs: bool = False) -> Log:
    with watch(model, outputs=outputs, describe=describe) as log:
        if isinstance(batch, Mapping):
            model(**batch)
        else:
            model(*batch) if isinstance(batch, tuple | list) else model(batch)
    return log


def _rows(routing: Routing, sequences: int) -> RoutedRows:
    mask = routing.aux.get("mask")
    tokens = max(len(routing.weights) // sequences, 1)
    position = torch.arange(len(routing.weights)) % tokens
    rows = RoutedRows.from_routing(replace(routing, outputs=None), groups={"position": position})
    return rows if mask is None else replace(rows, real=mask.cpu().flatten())


def _moved(rows: RoutedRows, again: RoutedRows, sequences: int) -> Tensor:
    """Which rows go elsewhere when the sequences come in the opposite order."""
    kept = again.kept.unflatten(0, (sequences, -1)).flip(0).flatten(0, 1)
    return (rows.kept != kept).any(1)


def _outputs(model: nn.Module, batch: Any, describe: Mapping[str, Described] | None) -> dict[str, Tensor]:
    """The experts' outputs for the first rows; none of families whose experts cannot be run one by one."""
    try:
        log = _call(model, map_nested(batch, lambda x: x[:1]), describe, outputs=True)
    except MoebiusError:
        return {}
    result = {}
    for path, routings in log.items():
        values = routings[0].outputs
        if values is not None:
            most = min(OUTPUT_ROWS, max(MOST_NUMBERS // max(values[0].numel(), 1), 2))
            mask = routings[0].aux.get("mask")
            result[path] = (values if mask is None else values[mask.flatten()])[:most].flatten(2).float().cpu()
    return result


def _examination(path: str, rows: RoutedRows, moved: list[Tensor] | None, outputs: Tensor | None) -> Examination:
    padding, real = None, rows.real
    is_moved = torch.cat(moved) if moved else None
    if real is not None:
        padding = float(rows.kept[~real].sum()), float(rows.kept.sum())
        rows = replace(rows.take(real), real=None)
        is_moved = None if is_moved is None else is_moved[real]
    return Examination(path, rows, padding=padding, moved=is_moved, outputs=outputs)
