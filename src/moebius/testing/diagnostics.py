"""The contract of diagnostics: arrays of an evaluation → a tidy table, and measures; needs the extra `lab`."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from moebius.testing._contract import require
from moebius.testing._measures import (
    frame_of,
    inputs,
    is_measure,
    measure_of,
    pad,
    renumber,
    renumber_frame,
    require_same_frame,
    sent_elsewhere,
    sort_lines,
    take,
)
from moebius.testing._run import run_checks
from moebius.testing._subject import Subject

_GROUPS = 3


def check_diagnostic(diagnostic: Callable[..., Any], **arguments: Any) -> None:
    """Hold a diagnostic to the contract of the room `diagnostics`: every function of `CHECKS`.

    A measure is a subclass of `Measure`. A function's parameters are named weights (T, E), groups, labels and
    predictions (T,), and names (of three groups or classes). One with another required parameter is of single figures,
    not of an evaluation, and is not checked here.

    Arguments:
        diagnostic: the class or the function.
        arguments: keywords for it.

    Raises:
        ContractError: the first rule that the diagnostic breaks.

    Example:
        >>> from moebius.lab.diagnostics import Load
        >>> check_diagnostic(Load)

    Reference: ours.
    """
    run_checks(CHECKS, Subject("diagnostics", diagnostic, arguments))


def gives_a_tidy_table_without_gaps(subject: Subject) -> None:
    """The result is a DataFrame with rows numbered from 0 and no missing value, for 1 and 200 rows, 1 to 20 experts."""
    import pandas as pd

    for rows in (1, 200):
        for experts in (1, 2, 20):
            if is_measure(subject):
                table = frame_of(subject, inputs(subject, rows, experts))
            elif is_of_an_evaluation(subject):
                table = subject.component(**make_arrays(subject, rows, experts))
            else:
                return
            require(isinstance(table, pd.DataFrame), f"gives a {type(table).__name__}, needs a pandas.DataFrame")
            numbered = isinstance(table.index, pd.RangeIndex)
            require(numbered, f"gives a {type(table.index).__name__} of rows", "table.reset_index(drop=True)")
            # One expert has no other, which is all that some measures are of.
            require(len(table) > 0 or (is_measure(subject) and experts == 1), "gives a table without rows")
            require(not table.isna().any(axis=None), "gives a table with missing values")


def does_not_depend_on_the_order_of_rows(subject: Subject) -> None:
    """Rows of the evaluation in another order give the same table."""
    order, rule = np.random.default_rng(1).permutation(100), "depends on the order of rows"
    if is_measure(subject):
        rows = inputs(subject, 100, 3)
        shuffled = take(rows, torch.tensor(order))
        require_same_frame(frame_of(subject, shuffled), frame_of(subject, rows), rule)
    elif is_of_an_evaluation(subject):
        arrays = make_arrays(subject, 100, 3)
        mixed = {name: value[order] if isinstance(value, np.ndarray) else value for name, value in arrays.items()}
        require_same_frame(subject.component(**mixed), subject.component(**arrays), rule)


def merges_into_the_measure_of_all_rows(subject: Subject) -> None:
    """Two halves, one measured by another process, merge into the measure that gets both in turn."""
    for experts in (1, 3, 20) if is_measure(subject) else ():
        rows = inputs(subject, 100, experts)
        halves = take(rows, slice(30)), take(rows, slice(30, None))
        first, second = (measure_of(subject, half) for half in halves)
        merged = first.merge(sent_elsewhere(second)).frame()
        require_same_frame(merged, frame_of(subject, *halves), "merges two halves into another table than that of both")


def does_not_depend_on_the_batches(subject: Subject) -> None:
    """Rows that come in several batches give the table of those that come at once."""
    if is_measure(subject):
        rows = inputs(subject, 100, 5)
        batches = [take(rows, part) for part in (slice(10), slice(10, 10), slice(10, 60), slice(60, None))]
        rule = "gives another table for the same rows in other batches"
        require_same_frame(frame_of(subject, *batches), frame_of(subject, rows), rule)


def leaves_padding_out(subject: Subject) -> None:
    """Padding among the rows changes nothing, whatever its weights are."""
    if is_measure(subject):
        rows = inputs(subject, 50, 3)
        padded = [pad(side) for side in rows]
        require_same_frame(frame_of(subject, padded), frame_of(subject, rows), "counts padding")


def renumbers_its_lines_with_the_experts(subject: Subject) -> None:
    """Experts in another order have the same lines, under their new numbers."""
    if is_measure(subject):
        rows, order = inputs(subject, 100, 6), torch.tensor([3, 5, 0, 1, 4, 2])
        frame = frame_of(subject, [renumber(side, order) for side in rows])
        expected = renumber_frame(frame_of(subject, rows), order)
        require_same_frame(sort_lines(frame), sort_lines(expected), "gives other lines for experts in another order")


def states_its_formula_range_and_null(subject: Subject) -> None:
    """The docstring of a measure has a formula, and paragraphs "Range:" and "Null:"; so does its table have a null."""
    if is_measure(subject):
        text = inspect.getdoc(subject.component) or ""
        require(" = " in text or "⇔" in text or ": " in text.split("\n\n")[1], "has a docstring without a formula")
        for paragraph in ("Range:", "Null:"):
            require(f"\n{paragraph}" in text, f"has a docstring without a paragraph {paragraph!r}")
        names = list(frame_of(subject, inputs(subject, 50, 3)))
        has_null = any(name == "null" or name.endswith("_null") for name in names)
        require(has_null, f"gives a table of {names}, without a null", "a column null, or NAME_null")


def is_of_an_evaluation(subject: Subject) -> bool:
    """Whether arrays of an evaluation are all that it requires."""
    required = {name for name, p in subject.parameters.items() if p.default is p.empty}
    return required - subject.arguments.keys() <= _arrays(1, 1).keys()


def make_arrays(subject: Subject, rows: int, experts: int) -> dict[str, Any]:
    """Random arrays by the names of the diagnostic's parameters, and the caller's arguments."""
    arrays = _arrays(rows, experts)
    return {**{name: arrays[name] for name in subject.parameters if name in arrays}, **subject.arguments}


def _arrays(rows: int, experts: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {
        "weights": random.dirichlet([0.5] * experts, rows).astype(np.float32),
        "groups": random.integers(0, _GROUPS, rows),
        "labels": random.integers(0, _GROUPS, rows),
        "predictions": random.integers(0, _GROUPS, rows),
        "names": ["a", "b", "c"],
    }


CHECKS = (
    gives_a_tidy_table_without_gaps,
    does_not_depend_on_the_order_of_rows,
    merges_into_the_measure_of_all_rows,
    does_not_depend_on_the_batches,
    leaves_padding_out,
    renumbers_its_lines_with_the_experts,
    states_its_formula_range_and_null,
)
