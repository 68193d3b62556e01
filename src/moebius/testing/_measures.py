"""Rows that measures are checked with, and their frames."""

import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moebius.kit.extras import lab
from moebius.testing._contract import ContractError
from moebius.testing._subject import Subject

# Columns that hold numbers of experts; −1 stands for none.
EXPERTS = ("expert", "other")


def is_measure(subject: Subject) -> bool:
    """Whether the component is a measure of rows, or of two routings of rows."""
    component = subject.component
    return isinstance(component, type) and issubclass(component, lab("diagnostics._sums", "Sums"))


def make_rows(rows: int, experts: int, seed: int = 0) -> Any:
    """Random rows that have all that a measure may read, two experts running on each."""
    random, k = torch.Generator().manual_seed(seed), min(2, experts)

    def draw(*shape: int) -> Tensor:
        return torch.rand(rows, *shape, generator=random)

    def draw_index(count: int, *shape: int) -> Tensor:
        return torch.randint(count, (rows, *shape), generator=random)

    probs = (3 * torch.randn(rows, experts, generator=random)).softmax(1)
    kept = torch.zeros(rows, experts, dtype=torch.bool).scatter(1, probs.topk(k).indices, True)
    weights = torch.where(kept, probs, 0)
    refused = ~kept & (draw(experts) < 0.1)
    groups = {"domain": draw_index(3), "class": draw_index(3), "position": draw_index(5) - 1}
    return lab("diagnostics._rows", "RoutedRows")(
        weights / weights.sum(1, keepdim=True),
        probs,
        kept,
        k,
        refused.sum(1),
        refused=refused,
        groups=groups,
        names={"domain": ["a", "b", "c"], "class": ["d", "e", "f"]},
        losses=draw(),
        scores=draw_index(2).float(),
        confidence=draw(),
        predictions=draw_index(3),
        expert_losses=draw(experts),
        expert_scores=draw_index(2, experts).float(),
        expert_confidence=draw(experts),
        expert_predictions=draw_index(3, experts),
        ablated_losses=draw(experts),
        ablated_scores=draw_index(2, experts).float(),
        outputs=torch.randn(rows, experts, 2, generator=random),
    )


def inputs(subject: Subject, rows: int, experts: int) -> list[Any]:
    """What the measure's `update` takes: rows, or those of two routings."""
    component, pair_measure = subject.component, lab("diagnostics._pair_measure", "PairMeasure")
    sides = 2 if isinstance(component, type) and issubclass(component, pair_measure) else 1
    return [make_rows(rows, experts, seed) for seed in range(sides)]


def frame_of(subject: Subject, *batches: Sequence[Any]) -> Any:
    """The frame of a measure that gets these batches in turn."""
    return measure_of(subject, *batches).frame()


def measure_of(subject: Subject, *batches: Sequence[Any]) -> Any:
    """A measure that has been given these batches in turn."""
    measure = subject.component(**subject.arguments)
    for batch in batches:
        measure.update(*batch)
    return measure


def take(batch: Sequence[Any], index: Tensor | slice) -> list[Any]:
    """The same rows of each side."""
    return [rows.take(index) for rows in batch]


def sent_elsewhere(measure: Any) -> Any:
    """The measure as another process receives it."""
    return pickle.loads(pickle.dumps(measure))


def pad(rows: Any) -> Any:
    """The rows among others that are padding, whose numbers are none."""
    count = len(rows)
    padded = rows.take(torch.arange(count).repeat_interleave(2))
    real = torch.arange(2 * count) % 2 == 0
    spoilt = {
        name: torch.where(real.view(-1, *[1] * (value.ndim - 1)), value, torch.nan)
        for name, value in vars(padded).items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    return replace(padded, real=real, **spoilt)


def renumber(rows: Any, order: Tensor) -> Any:
    """The rows of the same gate with its experts in another order."""
    tables = {
        name: value[:, order]
        for name, value in vars(rows).items()
        if isinstance(value, Tensor) and value.ndim > 1 and value.shape[1] == len(order)
    }
    return replace(rows, **tables)


def renumber_frame(frame: Any, order: Tensor) -> Any:
    """The frame with the numbers that experts have in that order."""
    places = torch.empty_like(order).scatter(0, order, torch.arange(len(order))).numpy()
    changed = {name: np.where(frame[name] < 0, frame[name], places[frame[name]]) for name in EXPERTS if name in frame}
    renumbered = frame.assign(**changed)
    if set(EXPERTS) <= set(frame) and (frame["expert"] < frame["other"]).all():
        # Pairs without an order: the smaller number comes first.
        renumbered[[*EXPERTS]] = np.sort(renumbered[[*EXPERTS]].to_numpy(), 1)
    return renumbered


def sort_lines(frame: Any) -> Any:
    """The lines in the order of what they are of: texts and numbers of experts."""
    keys = [name for name in frame if name in EXPERTS or frame[name].dtype.kind not in "fiub"]
    return frame.sort_values(keys, ignore_index=True) if keys else frame


def require_same_frame(frame: Any, expected: Any, rule: str) -> None:
    """Raise unless two frames hold the same, but for rounding."""
    import pandas as pd

    try:
        pd.testing.assert_frame_equal(frame, expected)
    except AssertionError as error:
        raise ContractError(f"{rule}. {error}") from None
