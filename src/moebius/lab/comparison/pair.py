"""Two models: how their scores differ over seeds and over rows, and on which rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moebius.kit.errors import StudyError
from moebius.lab.comparison.models import Model
from moebius.lab.report.tested_rows import TestRows, read_test_rows
from moebius.lab.statistics.difference import Difference
from moebius.lab.statistics.family import Contrast, correct, difference_of
from moebius.lab.statistics.holm import holm
from moebius.lab.statistics.paired_rows import paired_rows

# Rows of a class or a domain below which nothing is said of it.
LEAST_ROWS = 5


@dataclass(frozen=True)
class Group:
    """The rows of a class or of a domain.

    Arguments:
        kind: "class" or "domain".
        name: of it.
        difference: of the scores over its rows.
        p_holm: corrected for all classes and domains of the pair.
    """

    kind: str
    name: str
    difference: Difference
    p_holm: float | None = None


@dataclass(frozen=True)
class Pair:
    """A model beside another; differences are `name` minus `reference`.

    Arguments:
        name, reference: of the models.
        seeds: that both have; for two single runs of unlike seeds, none.
        over_seeds: of the mean test scores; None with fewer than two common seeds.
        over_rows: of the scores of test rows, each the mean over the seeds.
        rows_test: "mcnemar" or "student_t", the test of `over_rows`.
        agreement: share of rows with the same prediction, mean over the seeds; None where predictions are no classes.
        groups: the classes and domains, the largest difference first.
        seeds_p_holm, rows_p_holm: corrected for all pairs of the comparison.
        comparisons: how many pairs that are.
        margin: within which differences do not matter; None for none.
        p_level, p_level_holm: of the hypothesis that the difference that the verdict goes by is the margin or more, as
            it is and corrected; None without a margin.
    """

    name: str
    reference: str
    seeds: tuple[int, ...]
    over_seeds: Difference | None
    over_rows: Difference
    rows_test: str
    agreement: float | None
    groups: tuple[Group, ...]
    seeds_p_holm: float | None = None
    rows_p_holm: float | None = None
    comparisons: int = 1
    margin: float | None = None
    p_level: float | None = None
    p_level_holm: float | None = None

    @property
    def primary(self) -> Difference:
        """The difference that the verdict goes by: over seeds where there are two or more."""
        return self.over_rows if self.over_seeds is None else self.over_seeds

    @property
    def primary_p(self) -> float | None:
        """Its corrected p value."""
        return self.rows_p_holm if self.over_seeds is None else self.seeds_p_holm

    @property
    def contrast(self) -> Contrast:
        """What the verdict goes by."""
        over = "rows" if self.over_seeds is None else "seeds"
        levels = (self.margin, self.primary_p, self.p_level, self.p_level_holm)
        return Contrast(self.name, self.reference, self.primary, over, *levels)

    @property
    def verdict(self) -> str:
        """Of `name`, at 5 % for all pairs together.

        "not shown to differ", "better", "worse" or, within a margin, "level"; with one training of each "better as
        trained" and so on.
        """
        return self.contrast.verdict


def correct_pairs(pairs: Sequence[Pair], margin: float | None = None) -> tuple[Pair, ...]:
    """The pairs with p values that are corrected for all of them: over seeds and over rows apart."""
    over_seeds = correct([Contrast(pair.name, pair.reference, pair.over_seeds, "seeds", margin) for pair in pairs])
    over_rows = correct([Contrast(pair.name, pair.reference, pair.over_rows, "rows", margin) for pair in pairs])
    corrected = []
    for pair, of_seeds, of_rows in zip(pairs, over_seeds, over_rows, strict=True):
        primary = of_rows if pair.over_seeds is None else of_seeds
        levels = {"margin": margin, "p_level": primary.p_level, "p_level_holm": primary.p_level_holm}
        p_values = {"seeds_p_holm": of_seeds.p_holm, "rows_p_holm": of_rows.p_holm, "comparisons": len(pairs)}
        corrected.append(replace(pair, **p_values, **levels))
    return tuple(corrected)


class RowsOfRuns:
    """Reads the test rows of runs, each once."""

    def __init__(self) -> None:
        self._rows: dict[Any, TestRows] = {}

    def read(self, model: Model, seed: int) -> TestRows:
        """Of a run."""
        folder = model.folder(seed)
        if folder not in self._rows:
            self._rows[folder] = read_test_rows(folder)
        return self._rows[folder]


def check_comparable(models: list[Model], rows: RowsOfRuns) -> list[str]:
    """Whether all models learned the same task, and were tested on the same rows; notes about the data.

    Raises:
        StudyError: they were not.
    """
    first, notes = models[0], []
    for model in models[1:]:
        if model.score_name != first.score_name:
            rule = f"{model.name}: has the score {model.score_name}, and {first.name} has {first.score_name}"
            raise StudyError(rule, "runs of one task")
        if model.fingerprint == first.fingerprint:
            continue
        names = all(model.names(key) == first.names(key) for key in ("classes", "domains"))
        pair = [rows.read(each, min(each.runs)) for each in (model, first)]
        if not (names and pair[0].has_rows_of(pair[1])):
            rule = f"{model.name}: was tested on other rows than {first.name}, so nothing can be compared"
            raise StudyError(rule, "runs whose recipes have the same `data`")
        notes.append(f"{model.name}: the same test rows as {first.name}, and other data to train on")
    return notes


def compare_pair(model: Model, reference: Model, rows: RowsOfRuns, level: float = 0.95) -> Pair:
    """The differences of two models, without correction for other pairs.

    Raises:
        StudyError: they have no seed in common.
    """
    seeds = tuple(seed for seed in model.runs if seed in reference.runs)
    runs = [(seed, seed) for seed in seeds]
    if not seeds:
        if len(model.runs) > 1 or len(reference.runs) > 1:
            rule = f"{model.name} has seeds {list(model.runs)}, and {reference.name} has {list(reference.runs)}"
            raise StudyError(f"{rule}: none in common", f"{reference.folder(min(reference.runs))}    # one run of each")
        runs = [(min(model.runs), min(reference.runs))]
    over_seeds = difference_of(model.score_by_seed(), reference.score_by_seed(), level)
    ours = [rows.read(model, seed) for seed, _ in runs]
    theirs = [rows.read(reference, seed) for _, seed in runs]
    scores = [np.mean([each.scores for each in each_model], 0) for each_model in (ours, theirs)]
    is_binary = all(np.isin(values, (0, 1)).all() for values in scores)
    return Pair(
        model.name,
        reference.name,
        seeds,
        over_seeds,
        paired_rows(scores[0], scores[1], level),
        "mcnemar" if is_binary else "student_t",
        _agreement(ours, theirs, bool(model.names("classes"))),
        _groups(model, ours[0], scores, level),
    )


def _agreement(ours: list[TestRows], theirs: list[TestRows], has_classes: bool) -> float | None:
    pairs = [(a.predictions, b.predictions) for a, b in zip(ours, theirs, strict=True)]
    if not has_classes or any(a is None or b is None for a, b in pairs):
        return None
    return float(np.mean([np.mean(a == b) for a, b in pairs if a is not None and b is not None]))


def _groups(model: Model, rows: TestRows, scores: list[np.ndarray], level: float) -> tuple[Group, ...]:
    groups = []
    columns: Mapping[str, tuple[Any, tuple[str, ...]]] = {
        "class": (rows.labels, model.names("classes")),
        "domain": (rows.domains, model.names("domains")),
    }
    for kind, (values, names) in columns.items():
        if values is None or len(names) < 2:
            continue
        for number, name in enumerate(names):
            mask = values == number
            if mask.sum() >= LEAST_ROWS:
                groups.append(Group(kind, name, paired_rows(scores[0][mask], scores[1][mask], level)))
    corrected = holm([group.difference.p for group in groups])
    groups = [Group(each.kind, each.name, each.difference, p) for each, p in zip(groups, corrected, strict=True)]
    return tuple(sorted(groups, key=lambda group: -abs(group.difference.mean)))
