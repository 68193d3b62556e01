"""The comparisons of a study in sentences, which claim no more than the tests show."""

from moebius.lab.report.numbers import p_text, rate, signed_with_interval
from moebius.lab.statistics.family import Contrast, Family

# Variants that are not shown to differ are named with their figures up to this number.
NAMED = 4


def verdict_points(family: Family) -> list[tuple[str, str]]:
    """A point for each verdict: bold words, and the variants with their differences.

    Example:
        >>> from moebius.lab.statistics.family import compare_with_baseline
        >>> scores = {"a": {0: 0.60, 1: 0.62, 2: 0.61}, "b": {0: 0.70, 1: 0.71, 2: 0.72}}
        >>> verdict_points(compare_with_baseline(scores, "a"))
        [('Better than a:', 'b +.100 [+.075, +.125], p .003.')]
    """
    points = []
    for verdict, contrasts in family.by_verdict().items():
        lead = f"{_lead(verdict, family)}:"
        shown = contrasts if len(contrasts) <= NAMED + 1 or verdict != "not shown to differ" else contrasts[:NAMED]
        words = [_describe(contrast, verdict) for contrast in shown]
        words += [f"{len(contrasts) - len(shown)} others"] if len(shown) < len(contrasts) else []
        corrected = f" (p after Holm for {family.tested} comparisons)" if family.tested > 1 and not points else ""
        points.append((lead, f"{'; '.join(words)}{corrected}."))
    return points


def _lead(verdict: str, family: Family) -> str:
    word, _, rest = verdict.partition(" ")
    if word == "not":
        return f"Not shown to differ from {family.baseline}"
    relation = "than" if word != "level" else "with"
    lead = f"{word.capitalize()} {relation} {family.baseline}"
    lead += f" within {rate(family.margin)}" if word == "level" else ""
    return f"{lead}, {rest}" if rest else lead


def _describe(contrast: Contrast, verdict: str) -> str:
    difference = contrast.difference
    if difference is None:
        return f"{contrast.name} (fewer than two seeds in common)"
    text = f"{contrast.name} {signed_with_interval(difference)}"
    if difference.p is None:
        return f"{text}, every seed by the same, which no test can judge"
    if contrast.is_level and contrast.differs:
        return f"{text}, p {p_text(contrast.p_holm)}, by less than {rate(contrast.margin)}"
    return f"{text}, p {p_text(contrast.p_level_holm if verdict.startswith('level') else contrast.p_holm)}"


def sources_of_variance(rows: int | None = None) -> str:
    """What the intervals of a study hold fixed, and what varies.

    Arguments:
        rows: number of test rows where there is one seed; None for several seeds.
    """
    if rows is not None:
        return (
            f"Intervals are at 95 %, over the {rows:,} test rows: they say how these trained models would differ on "
            "other rows like them. How they would differ if they were trained again, only more seeds say (--seeds 5)."
        )
    return (
        "Intervals are Student's t over seeds, at 95 %: they say how a score varies when the model is trained again. "
        "How it would vary on other test rows, moebius compare says."
    )


def explain(family: Family) -> str:
    """How the comparisons are tested, for the note below their table."""
    pairs = "seed by seed" if family.over == "seeds" else "row by row"
    text = f"Differences are paired {pairs}. "
    if family.tested > 1:
        text += (
            f"Intervals are at 95 % each; p (Holm) is corrected for the {family.tested} comparisons: of studies in "
            "which nothing differs, at most 5 % name a difference. "
        )
    if family.margin is not None:
        text += (
            f"“Level” means that the difference is shown to be less than {rate(family.margin)} (two one-sided tests, "
            "corrected likewise). "
        )
    return text + "“Not shown to differ” is no proof of equality: moebius plan says how many seeds a difference needs."
