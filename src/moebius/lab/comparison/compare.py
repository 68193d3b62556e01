"""`compare`: models of studies beside each other."""

from pathlib import Path

from moebius.lab.comparison.comparison import Comparison
from moebius.lab.comparison.models import find_models
from moebius.lab.comparison.pair import RowsOfRuns, check_comparable, compare_pair, correct_pairs


def compare(
    *runs: str | Path,
    all_pairs: bool = False,
    level: float = 0.95,
    baseline: str | None = None,
    margin: float | None = None,
) -> Comparison:
    """Which models score better on the test rows, by how much, how sure that is, and at what cost.

    Two questions are answered apart. *Over seeds*: the training varies, the rows stay; Student's interval of the
    differences of seeds that both models have. *Over rows*: the trained models stay, the rows vary; the differences of
    single rows, with McNemar's test where each row is right or wrong. p values are corrected by Holm for the pairs, as
    in the study's report. The verdict goes by seeds, and by rows where there is one seed.

    Arguments:
        runs: folders: of a study, DIR, which means all of its variants; of a variant, DIR/VARIANT; of a run,
            DIR/VARIANT/seed-N. The first model is the reference; of a single study its recipe's `baseline`.
        all_pairs: whether every two models are compared, and not each with the reference.
        level: of the intervals, in (0, 1).
        baseline: name of the model that is the reference.
        margin: within which differences of the score do not matter, above 0, so that models may be shown to be level;
            None for the `margin` of the studies' recipes, where all have the same.

    Raises:
        StudyError: a folder holds no finished run, or the models were tested on other rows or learned other tasks.
        ArgumentError: fewer than two models are named, no model is called like the baseline, or the margin is not
            above 0.

    Example:
        >>> comparison = compare("runs/quickstart/linear", "runs/quickstart/conv")  # doctest: +SKIP
        >>> comparison.frame()[["model", "mean", "low", "high", "p_holm", "verdict"]]  # doctest: +SKIP

    Reference: ours; Demšar 2006, Statistical Comparisons of Classifiers over Multiple Data Sets, for what a comparison
    may claim.
    """
    models, rows = find_models(runs, baseline), RowsOfRuns()
    notes = check_comparable(models, rows)
    if margin is None:
        declared = {(model.about.get("recipe") or {}).get("margin") for model in models}
        margin = declared.pop() if len(declared) == 1 else None
    if all_pairs:
        chosen = [(b, a) for place, a in enumerate(models) for b in models[place + 1 :]]
    else:
        chosen = [(model, models[0]) for model in models[1:]]
    pairs = [compare_pair(model, reference, rows, level) for model, reference in chosen]
    return Comparison(tuple(models), correct_pairs(pairs, margin), level, tuple(notes))
