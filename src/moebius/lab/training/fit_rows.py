"""Rows in the forms in which people have them, as tensors: inputs and targets."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.lab.data.nested import map_nested, tensors_of

# Names of columns: one, several, or the names that they are to have → one or several each.
Names = str | Sequence[str] | Mapping[str, str | Sequence[str]]

# Rows of a map-style data set that are read at once.
_AT_ONCE = 256


def read_rows(
    name: str, data: Any, inputs: Names | None = None, target: Names | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Any, Any]:
    """Inputs and targets, each a tensor, or a tuple or mapping of tensors.

    Arguments:
        name: of the argument, for errors.
        data: a pair of inputs and targets (tensors, arrays, DataFrames, or tuples and mappings of them); a mapping of
            columns, a DataFrame or a Hugging Face data set, with `target`; or a `DataLoader`, a torch data set or any
            iterable of batches, which are pairs or mappings. Iterables are read to their end, once, into memory.
        inputs: names of the input columns; all but those of `target` unless given. One name gives one tensor; several
            give a mapping for mappings, and one tensor (T, columns) for a DataFrame. Inputs that have names already
            are chosen among, too.
        target: name of the target column, or of several.
        dtype: of numbers that come as float64 from NumPy or pandas.

    Raises:
        ArgumentError: the form is another, a name is unknown, a column holds text, there are no rows, or inputs are not
            numbers.
    """
    is_list_of_batches = isinstance(data, list) and all(isinstance(each, tuple | list | Mapping) for each in data)
    if isinstance(data, tuple | list) and len(data) == 2 and not is_list_of_batches:
        x, y = data
        if isinstance(y, str):
            x, y = _split_columns(name, _columns(x), inputs, y)
        elif inputs is not None:
            x = _choose(x, inputs)
    elif isinstance(data, Mapping) or hasattr(data, "columns") or hasattr(data, "column_names"):
        x, y = _split_columns(name, _columns(data), inputs, target, joins=hasattr(data, "columns"))
    elif isinstance(data, Iterable) or hasattr(data, "__getitem__"):
        x, y = _read_batches(name, data, inputs, target)
    else:
        rule = "needs inputs and targets: a pair, a table with target=, or batches"
        raise ArgumentError(name, rule, type(data).__name__, f"{name}=(x, y)")
    x, y = _as_tensors(name, x, dtype), _as_tensors(name, y, dtype)
    # torch's losses take whole numbers as int64 alone; no value changes.
    y = map_nested(y, lambda tensor: tensor if tensor.is_floating_point() else tensor.long())
    _check_lengths(name, x, y)
    return x, y


def _columns(data: Any) -> Mapping[str, Any]:
    """Name → values of a table's columns."""
    if hasattr(data, "with_format") and hasattr(data, "column_names"):
        return data.with_format("numpy")[:]
    return data if isinstance(data, Mapping) else {column: data[column] for column in data.columns}


def _split_columns(
    name: str, columns: Mapping[str, Any], inputs: Names | None, target: Names | None, joins: bool = True
) -> tuple[Any, Any]:
    if target is None:
        rule = f"needs the name of the target among the columns {', '.join(map(str, columns))}"
        raise ArgumentError("target", rule, None, f"target={str([*columns][-1])!r}")
    taken = {*_listed(target)}
    inputs = [column for column in columns if column not in taken] if inputs is None else inputs
    return _pick(columns, inputs, "inputs", joins), _pick(columns, target, "target", False)


def _choose(x: Any, inputs: Names) -> Any:
    """The inputs of these names, of those that stand in a pair with the targets."""
    if isinstance(x, Mapping) or hasattr(x, "columns"):
        return _pick(_columns(x), inputs, "inputs", joins=hasattr(x, "columns"))
    rule = "names columns, and the inputs have no names"
    raise ArgumentError("inputs", rule, inputs, 'data=({"image": image, "meta": meta}, y)')


def _listed(names: Names) -> list[str]:
    if isinstance(names, str):
        return [names]
    values = names.values() if isinstance(names, Mapping) else names
    return [column for value in values for column in ([value] if isinstance(value, str) else value)]


def _pick(columns: Mapping[str, Any], names: Names, argument: str, joins: bool) -> Any:
    for column in _listed(names):
        if column not in columns:
            raise ArgumentError(argument, "no column is called so", column, did_you_mean(column, map(str, columns)))
    if isinstance(names, str):
        return columns[names]
    if isinstance(names, Mapping):
        return {
            # One column of several axes as it is; columns of a number each side by side.
            name: columns[chosen[0]] if _is_alone(columns, chosen) else _pick(columns, chosen, argument, joins=True)
            for name, chosen in names.items()
        }
    if joins and all(np.ndim(columns[column]) == 1 for column in names):
        return np.stack([_numbers(argument, column, columns[column]) for column in names], 1)
    return {column: columns[column] for column in names}


def _is_alone(columns: Mapping[str, Any], names: str | Sequence[str]) -> bool:
    """Whether a list names one column, and that has several axes."""
    return not isinstance(names, str) and len(names) == 1 and np.ndim(columns[names[0]]) > 1


def _read_batches(name: str, data: Any, inputs: Names | None, target: Names | None) -> tuple[Any, Any]:
    is_map_style = hasattr(data, "__getitem__") and not isinstance(data, list)
    batches = DataLoader(cast(Any, data), _AT_ONCE) if is_map_style else data
    pairs: list[tuple[Any, Any]] = []
    for batch in batches:
        is_mapping = isinstance(batch, Mapping)
        if is_mapping:
            batch = _split_columns(name, batch, inputs, target, joins=False)
        if not (isinstance(batch, tuple | list) and len(batch) == 2):
            rule = "needs batches that are pairs of inputs and targets, or mappings"
            raise ArgumentError(name, rule, type(batch).__name__, "((x, y) for x, y, *_ in batches)")
        x = batch[0] if is_mapping or inputs is None else _choose(batch[0], inputs)
        pairs.append((x, batch[1]))
    if not pairs:
        rule = "gives no batch; an iterator that was read to its end gives none again"
        raise ArgumentError(name, rule, type(data).__name__, "DataLoader(dataset, batch_size=64)")
    return _join([x for x, _ in pairs]), _join([y for _, y in pairs])


def _join(pieces: Sequence[Any]) -> Any:
    first = pieces[0]
    if isinstance(first, Mapping):
        return {key: _join([piece[key] for piece in pieces]) for key in first}
    if isinstance(first, tuple | list):
        return tuple(_join(column) for column in zip(*pieces, strict=True))
    return torch.cat([torch.as_tensor(piece) for piece in pieces])


def _as_tensors(name: str, values: Any, dtype: torch.dtype) -> Any:
    if isinstance(values, Tensor):
        return values
    if isinstance(values, Mapping):
        return {key: _as_tensors(f"{name}[{key!r}]", value, dtype) for key, value in values.items()}
    if isinstance(values, tuple) or (isinstance(values, list) and values and isinstance(values[0], Tensor)):
        return tuple(_as_tensors(name, value, dtype) for value in values)
    if hasattr(values, "columns"):
        columns = _columns(values)
        return _as_tensors(name, _pick(columns, [*columns], name, joins=True), dtype)
    array = _numbers(name, getattr(values, "name", None), values)
    tensor = torch.from_numpy(np.array(array))  # a copy: arrays may be read-only, or change later
    return tensor.to(dtype) if tensor.dtype == torch.float64 else tensor


def _numbers(argument: str, column: Any, values: Any) -> Any:
    """Values as an array of numbers.

    Raises:
        ArgumentError: they are texts, categories or objects.
    """
    array = np.asarray(values)
    if array.dtype.kind in "biuf":
        return array
    where = argument if column is None else f"{argument}[{column!r}]"
    fix = 'frame["column"].astype("category").cat.codes    # numbers for texts; keep .cat.categories for their names'
    raise ArgumentError(where, "needs numbers", str(array.dtype), fix)


def _check_lengths(name: str, x: Any, y: Any) -> None:
    lengths = [len(tensor) if tensor.ndim else 0 for tensor in (*tensors_of(x), *tensors_of(y))]
    if len(set(lengths)) != 1:
        raise ArgumentError(name, "needs as many targets as inputs", lengths, "(x, y[: len(x)])    # or the rows lost")
    if not lengths[0]:
        raise ArgumentError(name, "needs at least one row", 0, f"{name}=(x, y), with rows")
    for tensor in tensors_of(x):
        bad = ~tensor.isfinite() if tensor.is_floating_point() else torch.zeros(1, dtype=torch.bool)
        if bool(bad.any()):
            row = int(bad.flatten(1).any(1).nonzero()[0]) if bad.ndim > 1 else int(bad.nonzero()[0])
            rule = f"needs finite inputs, and row {row} has one that is not"
            fix = "keep = x.isfinite().flatten(1).all(1); data = (x[keep], y[keep])    # or fill them in a copy"
            raise ArgumentError(name, rule, "NaN or infinite", fix)
