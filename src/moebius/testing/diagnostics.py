"""The contract of diagnostics: arrays of an evaluation → a tidy table; needs the extra `lab`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from moebius.testing._contract import ContractError, require
from moebius.testing._run import run_checks
from moebius.testing._subject import Subject

_GROUPS = 3


def check_diagnostic(diagnostic: Callable[..., Any], **arguments: Any) -> None:
    """Hold a diagnostic to the contract of the room `diagnostics`: every function of `CHECKS`.

    Its parameters are named weights (T, E), groups, labels and predictions (T,), and names (of three groups or
    classes). One with another required parameter is of single figures, not of an evaluation, and is not checked here.

    Arguments:
        diagnostic: the function.
        arguments: keywords for it.

    Raises:
        ContractError: the first rule that the diagnostic breaks.

    Example:
        >>> from moebius.lab.diagnostics import load
        >>> check_diagnostic(load)

    Reference: ours.
    """
    run_checks(CHECKS, Subject("diagnostics", diagnostic, arguments))


def gives_a_tidy_table_without_gaps(subject: Subject) -> None:
    """The result is a DataFrame with rows numbered from 0 and no missing value, for 1 and 200 rows, 1 to 20 experts."""
    import pandas as pd

    for rows in (1, 200) if is_of_an_evaluation(subject) else ():
        for experts in (1, 2, 20):
            table = subject.component(**make_arrays(subject, rows, experts))
            require(isinstance(table, pd.DataFrame), f"gives a {type(table).__name__}, needs a pandas.DataFrame")
            numbered = isinstance(table.index, pd.RangeIndex)
            require(numbered, f"gives a {type(table.index).__name__} of rows", "table.reset_index(drop=True)")
            require(len(table) > 0, "gives a table without rows")
            require(not table.isna().any(axis=None), "gives a table with missing values")


def does_not_depend_on_the_order_of_rows(subject: Subject) -> None:
    """Rows of the evaluation in another order give the same table."""
    import pandas as pd

    if is_of_an_evaluation(subject):
        arrays = make_arrays(subject, 100, 3)
        order = np.random.default_rng(1).permutation(100)
        shuffled = {name: value[order] if isinstance(value, np.ndarray) else value for name, value in arrays.items()}
        try:
            pd.testing.assert_frame_equal(subject.component(**shuffled), subject.component(**arrays))
        except AssertionError as error:
            raise ContractError(f"depends on the order of rows. {error}") from None


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


CHECKS = (gives_a_tidy_table_without_gaps, does_not_depend_on_the_order_of_rows)
