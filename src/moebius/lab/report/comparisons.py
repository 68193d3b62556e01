"""The comparisons of a study with its baseline, which report, terminal, `moebius compare` and JSON share."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from moebius.lab.report.frames import Frame, make_frame
from moebius.lab.report.queries import measure_by_seed, ranking
from moebius.lab.report.source import Study
from moebius.lab.report.tested_rows import read_test_rows
from moebius.lab.statistics.family import Family, compare_with_baseline

COLUMNS = (
    *("variant", "baseline", "over", "mean", "low", "high", "sd", "count", "p", "p_holm"),
    *("margin", "p_level", "p_level_holm", "verdict"),
)


def compare_variants(study: Study, row_scores: Mapping[str, Float[np.ndarray, " T"]] | None = None) -> Family | None:
    """Every variant of a study beside its baseline: over seeds, or over test rows where it has a single seed.

    Arguments:
        study: need not have tables.
        row_scores: of `read_row_scores`; None to read them.

    Returns:
        The family; None for a study with fewer than two variants that can be compared.
    """
    scores = paired_scores(study, row_scores)
    if len(scores) < 2:
        return None
    baseline = study.baseline if study.baseline in scores else next(iter(scores))
    return compare_with_baseline(scores, baseline, study.margin, choose_on_validation(study))


def paired_scores(
    study: Study, row_scores: Mapping[str, Float[np.ndarray, " T"]] | None = None
) -> dict[str, dict[int, float]] | dict[str, Float[np.ndarray, " T"]]:
    """The test scores by which variants are compared: by seed, or by row where the study has a single seed.

    Arguments:
        study: need not have tables.
        row_scores: of `read_row_scores`; None to read them.

    Returns:
        Variant → its scores; empty where a single seed left no rows, or not the same ones for all variants.
    """
    if len(study.seeds) == 1:
        rows = read_row_scores(study) if row_scores is None else row_scores
        alike = len({len(values) for values in rows.values()}) == 1
        tested = [name for name in study.variants if measure_by_seed(study, name, study.score, "test")]
        return {name: rows[name] for name in tested if name in rows} if alike else {}
    by_seed = {name: measure_by_seed(study, name, study.score, "test") for name in study.variants}
    return {name: values for name, values in by_seed.items() if values}


def choose_on_validation(study: Study) -> str | None:
    """The variant with the best mean score on held-out rows; None where a variant has none, or there is no other."""
    ranked = ranking(study, "validation")
    return ranked[0][0] if len(ranked) == len(study.variants) > 1 else None


def read_row_scores(study: Study) -> dict[str, Float[np.ndarray, " T"]]:
    """Variant → the score of each test row of its only run; empty where the study has several seeds.

    Raises:
        StudyError: a routing.parquet cannot be read.
    """
    if len(study.seeds) > 1:
        return {}
    folders = {run["variant"]: study.run_folder(run) for run in study.runs}
    return {
        name: rows.scores
        for name, folder in folders.items()
        if (folder / "routing.parquet").is_file() and len((rows := read_test_rows(folder)).scores)
    }


def comparison_frame(family: Family | None) -> Frame:
    """A line for each comparison; docs/results-schema.md describes the columns."""
    lines = []
    for contrast in family.contrasts if family is not None else ():
        difference = contrast.difference
        figures = [getattr(difference, name, None) for name in ("mean", "low", "high", "sd", "count", "p")]
        lead = (contrast.name, contrast.reference, contrast.over, *figures, contrast.p_holm)
        lines.append((*lead, contrast.margin, contrast.p_level, contrast.p_level_holm, contrast.verdict))
    return make_frame(lines, COLUMNS)
