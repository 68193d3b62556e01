"""The table of all ways, and the same in words."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from moebius.lab.compose.judge import BASELINE
from moebius.lab.compose.recommend import cost_unit, find_front
from moebius.lab.compose.result import Result
from moebius.lab.report.numbers import NONE, p_text, rate, signed
from moebius.lab.statistics.holm import holm
from moebius.lab.statistics.paired_rows import paired_rows
from moebius.lab.statistics.row_interval import row_interval

COLUMNS = {
    "score": "float64",
    "low": "float64",
    "high": "float64",
    "difference": "float64",
    "difference_low": "float64",
    "difference_high": "float64",
    "p": "float64",
    "loss": "float64",
    "multiply_adds": "float64",
    "ms": "float64",
    "parameters": "Int64",
    "control": "bool",
    "front": "bool",
    "reason": "string",
}


def make_table(results: Sequence[Result], reference: str = BASELINE) -> pd.DataFrame:
    """A row for each way, the highest score first and those that were not tried last.

    `score` has its 95 % interval, `low` and `high`; `difference` is to the best single network on the same rows, with
    its interval and `p` after Holm over all ways; `loss` is the mean loss; `multiply_adds`, `ms` and `parameters` are
    costs; `front` is true for a way of which no other has a score as high at a lower cost; `reason` says why a way was
    not tried.

    Arguments:
        results: of all ways.
        reference: the way that all are compared with.
    """
    base = next(each for each in results if each.way == reference)
    front = find_front(results, cost_unit(results))
    rows, p_values = {}, []
    for each in sorted(results, key=lambda each: (not each.is_tried, -np.nan_to_num(each.score), each.way)):
        row: dict[str, object] = {"control": each.control, "front": each.way in front, "reason": each.reason}
        p = None
        if each.scores is not None:
            interval = row_interval(each.scores)
            row |= {"score": each.score, "low": interval.low, "high": interval.high, "loss": each.loss}
            row |= {"multiply_adds": each.multiply_adds, "ms": each.ms, "parameters": each.parameters}
            if each is not base and base.scores is not None:
                difference = paired_rows(each.scores, base.scores)
                p = difference.p
                row |= {"difference": difference.mean, "difference_low": difference.low}
                row |= {"difference_high": difference.high}
        rows[each.way] = row
        p_values.append(p)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[name for name in COLUMNS if name != "p"])
    table.insert(list(COLUMNS).index("p"), "p", holm(p_values))
    table.index.name = "way"
    return table.astype(COLUMNS)


def difference_text(row: Mapping[str, Any]) -> str:
    """A difference with its interval, of a row of the table; "equal" where no row of the data differs."""
    ends = [row["difference_low"], row["difference_high"]]
    if any(map(math.isnan, ends)):
        return "equal" if row["difference"] == 0 else signed(row["difference"])
    return f"{signed(row['difference'])} [{signed(ends[0])}, {signed(ends[1])}]"


def short_number(value: float | None) -> str:
    """A number in thousands, millions or billions: 1.3 M."""
    if value is None or not math.isfinite(value):
        return NONE
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def records(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Way → column → value."""
    return {str(way): values for way, values in table.to_dict("index").items()}  # type: ignore[misc]


def text_rows(table: pd.DataFrame) -> list[list[str]]:
    """The cells of the table as texts, ways that were not tried left out; the first row has the headings."""
    rows = [["way", "score", "95 % interval", "to best-single", "p", "loss", "mult-adds", "ms", "front"]]
    for way, row in records(table).items():
        if math.isnan(row["score"]):
            continue
        change = NONE if math.isnan(row["difference"]) else difference_text(row)
        name = f"{way} (control)" if row["control"] else str(way)
        cells = [name, rate(row["score"]), f"[{rate(row['low'])}, {rate(row['high'])}]", change]
        cells += [
            NONE if math.isnan(row["p"]) else p_text(row["p"]),
            f"{row['loss']:.3f}",
            short_number(row["multiply_adds"]),
            f"{row['ms']:.3g}",
        ]
        rows.append([*cells, "✓" if row["front"] else ""])
    return rows
