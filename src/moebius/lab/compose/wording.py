"""A composition in words: the answer first, then the table."""

import math
from html import escape
from typing import TYPE_CHECKING, Any

from moebius.kit.html import html_table
from moebius.lab.compose.judge import BASELINE
from moebius.lab.compose.table import difference_text, records, text_rows
from moebius.lab.report.numbers import p_text, rate

if TYPE_CHECKING:
    from moebius.lab.compose.composition import Composition

SCHEMA = 1
# The p value below which a difference is shown.
SHOWN = 0.05


def answer(composition: "Composition") -> str:
    """What to take, in a sentence or two."""
    result, table = composition.result(), records(composition.table)
    row, name = table[result.way], composition.pool.task.score_name.replace("_", " ")
    score = f"{name} {rate(row['score'])} [{rate(row['low'])}, {rate(row['high'])}]"
    base = composition.result(BASELINE)
    if result.way == BASELINE:
        better = [way for way, each in table.items() if each["p"] < SHOWN and each["difference"] > 0]
        better = [way for way in better if not table[way]["control"]]
        text = f"Take {result.text}: {score}. "
        text += f"At more cost, better: {', '.join(better)}." if better else "No mixture is shown to be better."
    else:
        shown = "" if row["p"] < SHOWN else ", which is not shown to differ"
        p = "" if math.isnan(row["p"]) else f", p {p_text(row['p'])}"
        text = f"Take {result.way} ({result.text}): {score}, "
        text += f"{difference_text(row)} to {base.text}{p}{shown}."
        if shown and row["loss"] < table[BASELINE]["loss"]:
            text += f" Its loss is less: {row['loss']:.3f}, not {table[BASELINE]['loss']:.3f}."
    return text + _controls(composition)


def _controls(composition: "Composition") -> str:
    """Which controls have a higher score than what is recommended."""
    score = composition.result().score
    above = [each for each in composition.results if each.control and each.is_tried and each.score > score]
    if not above:
        return ""
    named = ", ".join(f"{each.way} {rate(each.score)}" for each in above)
    return f" Trained from the start, {'a control has' if len(above) == 1 else 'controls have'} more: {named}."


def as_text(composition: "Composition") -> str:
    """The answer, the networks, the table, and what was not tried."""
    pool, rows = composition.pool, text_rows(composition.table)
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    networks = ", ".join(
        f"{name} {rate(score)}" for name, score in zip(pool.names, pool.scores().tolist(), strict=True)
    )
    notes = [f"{each.way}: {each.reason}" for each in composition.results if not each.is_tried]
    parts = [answer(composition), "", *lines, "", f"Networks alone, all rows: {networks}."]
    parts.append(f"Judged on {composition.plan.text(len(pool))}. p after Holm for all ways.")
    if notes:
        parts += ["Not tried:", *(f"  {note}" for note in notes)]
    return "\n".join(parts)


def as_html(composition: "Composition") -> str:
    """The answer and the table, for notebooks."""
    heading, *rows = text_rows(composition.table)
    return f"<p>{escape(answer(composition))}</p>" + html_table("Ways", heading, rows)


def facts_of(composition: "Composition") -> dict[str, Any]:
    """All figures, as they go into JSON."""
    ways = [
        {"way": way, **{name: _plain(value) for name, value in row.items()}, "text": _text(composition, way)}
        for way, row in records(composition.table).items()
    ]
    return {
        "schema": SCHEMA,
        "answer": answer(composition),
        "recommended": composition.recommended,
        "front": composition.front,
        "rows": {"plan": composition.plan.kind, "text": composition.plan.text(len(composition.pool))},
        "score": composition.pool.task.score_name,
        "networks": {
            name: {column: _plain(value) for column, value in row.items()}
            for name, row in records(composition.networks).items()
        },
        "ways": ways,
    }


def _text(composition: "Composition", way: str) -> str:
    return next(each.text for each in composition.results if each.way == way)


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, bool | int | float | str) else None
