"""One pass of a model over rows that are asked about, and the domains of these rows."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from moebius.core.recording import Log, record
from moebius.core.row_context import RowContext, current_context, row_context
from moebius.kit.errors import ArgumentError, DataError, MoebiusError
from moebius.kit.registry import did_you_mean
from moebius.lab.training.call_model import splits_inputs
from moebius.lab.training.precision import autocast
from moebius.storage.header import fix_for

# What values from a file may cause in parts that fit each other otherwise; anything else is a fault of ours.
_UNCOMPUTABLE = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


def run_rows(model: nn.Module, x: Any, context: RowContext, precision: str = "fp32") -> tuple[Any, Log]:
    """The model's output for all rows, and the routings of its mixtures, in one pass.

    Arguments:
        model: in evaluation mode.
        x: rows, as the model takes them; a tuple of inputs is passed in turn, a mapping by its names.
        context: of the rows.
        precision: "fp32" or "bf16".
    """
    with torch.inference_mode(), record(model) as log, autocast(precision), row_context(context):
        return call_whole(model, x), log


@contextmanager
def computable(run: Path) -> Iterator[None]:
    """A block that computes with the model of a run, which may be from elsewhere: what it raises becomes one error.

    Raises:
        DataError: the description of the model, or of its data, has values that its parts cannot compute with.
    """
    try:
        yield
    except MoebiusError:
        raise
    except _UNCOMPUTABLE as error:
        rule = f"{run / 'model.safetensors'}: its model cannot compute this ({type(error).__name__}: {error})"
        raise DataError(rule, fix_for(run)) from error


def call_whole(model: nn.Module, x: Any) -> Any:
    """The model called with these inputs: one tensor, a tuple of them in turn, or a mapping by names."""
    if isinstance(x, dict) and not splits_inputs(model, x):
        return model(**x)
    return model(*x) if isinstance(x, tuple) else model(x)


def needs_domain(model: nn.Module) -> bool:
    """Whether a gate or an expert of the model reads the domain of a row."""
    return any("domain" in getattr(module, "context_keys", ()) for module in model.modules())


def context_of_domain(model: nn.Module, domain: str | None, domains: Sequence[str], rows: int) -> RowContext:
    """The context of `rows` images of one domain; empty where no domain is given and no gate needs it.

    Raises:
        ArgumentError: the domain is unknown, or missing where a gate needs it.
    """
    if domain is None:
        if needs_domain(model):
            rule = "must name the set that the images belong to, because this run's gate routes by it"
            raise ArgumentError("domain", rule, None, f"--domain {shlex.quote(domains[0])}")
        return current_context()
    if domain not in domains:
        fix = f"--domain {shlex.quote(domains[0])}"
        raise ArgumentError("domain", f"needs one of {', '.join(domains)}", domain, fix)
    return current_context().with_values({"domain": torch.full((rows,), list(domains).index(domain))})


def context_of_table(
    model: nn.Module, rows: pd.DataFrame, column: str | None, domain: str | None, domains: Sequence[str]
) -> RowContext:
    """The context of rows of a table, whose domain is given or stands in a column; empty where no gate needs it.

    Raises:
        ArgumentError: a domain is unknown, or missing where a gate needs it.
    """
    if not needs_domain(model):
        return current_context()
    if domain is None and (column is None or column not in rows):
        rule = "must name the domain of the rows, because this run's gate routes by it"
        fix = f"--domain {shlex.quote(domains[0])}" + f"    # or a column {column}" * bool(column)
        raise ArgumentError("domain", rule, None, fix)
    texts = [domain] * len(rows) if domain is not None else [str(value) for value in rows[column]]
    for text in texts:
        if text not in domains:
            raise ArgumentError("domain", f"needs one of {', '.join(domains)}", text, did_you_mean(text, domains))
    numbers = np.array([list(domains).index(text) for text in texts], dtype=np.int64)
    return current_context().with_values({"domain": torch.from_numpy(numbers)})
