"""The thresholds of a composition: at most a share of the rows to an expensive network, and no answer where unsure."""

from typing import TYPE_CHECKING

import numpy as np

from moebius.experts.abstention import Abstention
from moebius.experts.cascade import Cascade
from moebius.kit.errors import ArgumentError
from moebius.lab.compose.thresholds import (
    Threshold,
    accuracy_threshold,
    check_share,
    judged_confidence,
    share_threshold,
)
from moebius.tasks.classification import Classification

if TYPE_CHECKING:
    from moebius.lab.compose.composition import Composition


def cap_share(composition: "Composition", share: float, expert: str | int) -> Threshold:
    """A cascade that sends a share of the rows at most to one network; see `Composition.at_most`."""
    pool, share = composition.pool, check_share("share", share)
    _check_task(composition)
    expensive = _number(composition, expert)
    rest = [number for number in range(pool.count) if number != expensive]
    generalists = [number for number in rest if bool(pool.knows[number].all())]
    if not generalists:
        rule = "leaves no network of all classes that could answer the other rows"
        raise ArgumentError("expert", rule, expert, f"expert={pool.names[rest[0] if rest else expensive]!r}")
    cheap = pool.best(generalists)
    judge, second = pool.experts[cheap], pool.experts[expensive]
    values, _ = judged_confidence(judge, pool.rows)
    threshold = share_threshold(values, share)
    spread = 2.0 * np.sqrt(share * (1 - share) / len(values))
    text = (
        f"at most {share:.0%} of the rows to {pool.names[expensive]}, those of which {pool.names[cheap]} is least sure"
    )
    text += f": below {threshold:.3g}, by {len(values):,} rows. On many rows like these the share is "
    text += f"{share - spread:.1%} to {share + spread:.1%} (95 %)."
    return Threshold(Cascade(judge, second, threshold).eval(), judge, "share", share, 0.5, threshold, values, text)


def abstain_below(composition: "Composition", accuracy: float, level: float, way: str | None) -> Threshold:
    """A model that does not answer where it is unsure; see `Composition.abstain`."""
    accuracy, level = check_share("accuracy", accuracy), check_share("level", level)
    _check_task(composition)
    result = composition.result(way)
    assert result.model is not None
    rows = composition.pool.rows.take(composition.plan.judged.to(composition.pool.rows.device))
    values, right = judged_confidence(result.model, rows)
    # The judging rows have chosen the way among those that were tried.
    tried = sum(each.is_tried and not each.control for each in composition.results)
    threshold = accuracy_threshold(values, right, accuracy, level, tried)
    if threshold is None:
        rule = f"is not shown for any part of {len(values):,} judging rows"
        raise ArgumentError("accuracy", rule, accuracy, f"accuracy={max(float(right.mean()), 0.5):.2f}, or more rows")
    share = float((values >= threshold).mean())
    text = f"answered rows have an accuracy of at least {accuracy:g}, with a chance of {level:g}: {share:.1%} of "
    text += f"{len(values):,} judging rows, those with a confidence of at least {threshold:.3g}."
    if composition.plan.kind != "held_out":
        text += " The model was fitted to these rows, so that the chance is approximate."
    model = Abstention(result.model, threshold).eval()
    return Threshold(model, result.model, "accuracy", accuracy, level, threshold, values, text)


def _check_task(composition: "Composition") -> None:
    task = composition.pool.task
    if not isinstance(task, Classification):
        rule = "needs classes: the largest probability is the confidence"
        raise ArgumentError("task", rule, type(task).__name__, "composition.recommend(cost=…)")


def _number(composition: "Composition", expert: str | int) -> int:
    names = composition.pool.names
    if isinstance(expert, str) and expert in names:
        return names.index(expert)
    if isinstance(expert, int) and not isinstance(expert, bool) and expert in range(len(names)):
        return expert
    raise ArgumentError("expert", f"needs one of {', '.join(names)}", expert, f"expert={names[0]!r}")
