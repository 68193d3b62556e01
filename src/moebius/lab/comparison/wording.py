"""A comparison in words, which claim no more than the tests show."""

import textwrap
from collections.abc import Sequence

from moebius.kit.html import html_table
from moebius.lab.comparison.comparison import Comparison
from moebius.lab.comparison.pair import Group, Pair
from moebius.lab.report.numbers import NONE, count, duration, p_text, rate, signed_with_interval
from moebius.lab.report.source import measure_words
from moebius.lab.report.text_columns import text_columns
from moebius.lab.statistics.family import LEVEL

# Classes and domains of each pair that the text shows.
SHOWN_GROUPS = 3


def verdict_text(pair: Pair) -> str:
    """The verdict with the difference, its interval and what it is over.

    Example:
        >>> from moebius.lab.statistics.difference import Difference
        >>> difference = Difference(0.003, -0.004, 0.010, 0.3, 5)
        >>> verdict_text(Pair("a", "b", (0, 1), difference, difference, "mcnemar", None, (), 0.3, 0.3))
        'not shown to differ over 5 seeds: +.003 [−.004, +.010], p .300'
    """
    primary = pair.primary
    over = f"{primary.count:,} {'rows' if pair.over_seeds is None else 'seeds'}"
    text = f"{pair.verdict} over {over}: {signed_with_interval(primary)}"
    if primary.p is None:
        return f"{text}; every seed differs by the same, which no test can judge"
    corrected = f" after Holm for {pair.comparisons}" if pair.comparisons > 1 else ""
    is_level = pair.verdict.startswith("level")
    within = f" of at least {rate(pair.margin)}" if is_level else ""
    p = pair.p_level_holm if is_level else pair.primary_p
    return f"{text}, p{within} {p_text(p)}{corrected}"


def comparison_text(comparison: Comparison, width: int = 80) -> str:
    """The lines that `Comparison.text` gives."""
    lines = text_columns(*model_cells(comparison), width, folded="model")
    references = dict.fromkeys(pair.reference for pair in comparison.pairs)
    for reference in references:
        pairs = [pair for pair in comparison.pairs if pair.reference == reference]
        if any(pair.over_seeds is not None for pair in pairs):
            title = f"minus {reference}, over seeds: the training varies"
            lines += ["", title, *text_columns(*seed_cells(pairs), width, folded="model")]
        title = f"minus {reference}, over test rows: these trained models on other rows"
        lines += ["", title, *text_columns(*row_cells(pairs), width, folded="model")]
        groups = [(pair, group) for pair in pairs for group in pair.groups[:SHOWN_GROUPS]]
        if groups:
            lines += [
                "",
                f"where they differ most from {reference}, over rows",
                *text_columns(*group_cells(groups), width, folded="class or domain"),
            ]
    for text in ("", *remarks_of(comparison)):
        lines += textwrap.wrap(text, width) or [""]
    return "\n".join(lines)


def model_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the table of models."""
    several = any(model.score.count > 1 for model in comparison.models)
    headings = ["model", measure_words(comparison.score_name), *(["seeds"] * several), "parameters", "mult-adds"]
    headings += ["experts run", "time"]
    rows = []
    for model in comparison.models:
        row = [model.name, rate(model.score.mean), *([str(model.score.count)] * several), count(model.parameters)]
        row += [count(comparison.multiply_adds[model.name]), model.experts_run or NONE, duration(model.seconds)]
        rows.append(row)
    return headings, rows


def seed_cells(pairs: Sequence[Pair]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the differences over seeds."""
    margin, rows = pairs[0].margin, []
    for pair in pairs:
        level = [] if margin is None else [p_text(pair.p_level_holm)]
        if pair.over_seeds is None:
            rows.append([pair.name, NONE, NONE, *(NONE for _ in level), "one training of each"])
        else:
            figures = [signed_with_interval(pair.over_seeds), p_text(pair.seeds_p_holm), *level]
            rows.append([pair.name, *figures, pair.verdict])
    level = [] if margin is None else [f"p level within {rate(margin)}"]
    return ["model", "difference", "p", *level, "verdict"], rows


def row_cells(pairs: Sequence[Pair]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the differences over test rows."""
    headings = ["model", "difference", "p", "agree", "verdict"]
    rows = []
    for pair in pairs:
        agreement = NONE if pair.agreement is None else f"{pair.agreement:.0%}"
        verdict = pair.verdict if pair.over_seeds is None else ""
        rows.append([pair.name, signed_with_interval(pair.over_rows), p_text(pair.rows_p_holm), agreement, verdict])
    # Where all have several seeds the verdicts stand with those; agreement is of classes.
    kept = [place for place in range(5) if place < 3 or any(row[place] not in ("", NONE) for row in rows)]
    return [headings[place] for place in kept], [[row[place] for place in kept] for row in rows]


def group_cells(groups: Sequence[tuple[Pair, Group]]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the differences within classes and domains."""
    rows, last = [], None
    for pair, group in groups:
        name = pair.name if pair.name != last else ""
        last = pair.name
        difference = group.difference
        rows.append([name, group.name, f"{difference.count:,}", signed_with_interval(difference), p_text(group.p_holm)])
    return ["model", "class or domain", "rows", "difference", "p"], rows


def remarks_of(comparison: Comparison) -> list[str]:
    """What the intervals and p values mean, and what they do not show."""
    percent = f"{comparison.level:.0%}".replace("%", " %")
    several = len(comparison.pairs) > 1
    corrected = f", corrected by Holm for {len(comparison.pairs)} comparisons" if several else ""
    if any(pair.groups for pair in comparison.pairs):
        corrected += "; of classes and domains for all of those of a pair"
    remarks = [f'Intervals {percent}; p two-sided{corrected}; "not shown" is p of {LEVEL:.2f} or more.']
    margin = comparison.pairs[0].margin
    if margin is not None:
        remarks.append(f'"Level" is shown to differ by less than {rate(margin)}, by two one-sided tests.')
    over_seeds = [pair for pair in comparison.pairs if pair.over_seeds is not None]
    if len(over_seeds) < len(comparison.pairs):
        remarks.append("Of one training of each, nothing tells how the difference varies when they are trained again.")
    few = min((pair.over_seeds.count for pair in over_seeds if pair.over_seeds is not None), default=5)
    if few < 5:
        remarks.append(f"{few} seeds show large differences only: moebius run … --seeds 5 adds some.")
    if any(pair.verdict == "not shown to differ" for pair in over_seeds):
        remarks.append("How many seeds a difference needs, moebius plan says.")
    return [*remarks, *comparison.notes]


def comparison_html(comparison: Comparison) -> str:
    """Tables for a notebook."""
    parts = [html_table("Models", *model_cells(comparison))]
    rows = [[pair.name, pair.reference, verdict_text(pair)] for pair in comparison.pairs]
    parts.append(html_table("Differences", ["model", "reference", "verdict"], rows))
    return "".join(parts)
