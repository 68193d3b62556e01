"""What the first screen of the page claims: which model to take, how sure that is, and whether the gate pays."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from moebius.lab.report.comparisons import paired_scores
from moebius.lab.report.controls import Control, against_baseline, list_controls, oracle_of
from moebius.lab.report.expert_names import expert_label, expert_names
from moebius.lab.report.queries import estimate_of, ranking
from moebius.lab.report.source import Study
from moebius.lab.report.variant_sorts import has_learned_gate
from moebius.lab.statistics.family import Contrast, Values, correct, difference_of
from moebius.lab.statistics.interval import Estimate

# What made the choice: there is nothing to choose from; held-out rows; being shown better than the baseline, and of
# several such variants the largest mean on test; that nothing is shown better than the baseline; or nothing at all,
# where no test is possible, and it is the largest mean on test.
Choice = Literal["only", "held out", "better", "baseline", "largest"]


@dataclass(frozen=True)
class GateClaims:
    """What is claimed of a mixture's gate.

    Arguments:
        mixture: the variant: the pick, or where that has no learned gate the best mixture that has one.
        controls: what it is compared with.
        oracle: score of a gate that knows which expert does best for each row; None where none was measured.
        left: by seed, the oracle's score minus the mixture's.
        unused: seed → names of the experts of its first gate that are ignored or starved.
        experts: number of experts of that gate.
    """

    mixture: str
    controls: tuple[Control, ...]
    oracle: Estimate | None
    left: tuple[float, ...]
    unused: Mapping[int, tuple[str, ...]]
    experts: int

    @property
    def verdict(self) -> Literal["pays", "pays in part", "not shown", "does not pay", "untested"]:
        """Whether the mixture is shown to be better than its controls.

        "pays": better than all of them. "pays in part": than some, and worse than none. "does not pay": worse than one,
        or level with one and better than none. "not shown": told apart from none. "untested": there is no test.
        """
        verdicts = {control.verdict for control in self.controls} - {"untested"}
        if not verdicts:
            return "untested"
        if "better" in verdicts and "worse" not in verdicts:
            return "pays" if verdicts == {"better"} else "pays in part"
        return "does not pay" if verdicts & {"worse", "level"} else "not shown"


@dataclass(frozen=True)
class Claims:
    """The claims of the first screen; every figure in its sentences is one of these.

    Arguments:
        pick: the variant to take.
        estimate: of its test score, over `over`.
        over: what the interval is over; None where there is none.
        choice: what picked it.
        baseline: that the study compares with.
        better: the variants that are shown to be better than the baseline.
        contrast: the pick minus the baseline, of the study's family; None for the baseline itself, and without a test.
        comparisons: the number that its p value is corrected for.
        rivals: other variant → its comparison with the pick, corrected.
        parameters: variant → number of parameters.
        gate: of the best mixture; None where no variant has a learned gate.
    """

    pick: str
    estimate: Estimate
    over: Literal["seeds", "rows"] | None
    choice: Choice
    baseline: str
    better: tuple[str, ...]
    contrast: Contrast | None
    comparisons: int
    rivals: Mapping[str, Contrast]
    parameters: Mapping[str, int]
    gate: GateClaims | None

    @property
    def ties(self) -> tuple[str, ...]:
        """The variants that are not told apart from the pick."""
        return tuple(name for name, contrast in self.rivals.items() if not contrast.differs)

    @property
    def beaten(self) -> tuple[str, ...]:
        """The variants that the pick is shown to be better than."""
        return tuple(name for name, contrast in self.rivals.items() if self._difference(contrast) > 0)

    @property
    def above(self) -> tuple[str, ...]:
        """The variants that are shown to be better than the pick, which held-out rows chose."""
        return tuple(name for name, contrast in self.rivals.items() if self._difference(contrast) < 0)

    @property
    def leading(self) -> Contrast | None:
        """The variant most above a pick that is the baseline for want of proof, if its interval by itself leaves out 0;
        else None. With few seeds the correction may hide what is there.
        """
        if self.choice != "baseline" or self.over != "seeds":
            return None
        differences = ((each, each.difference) for each in self.rivals.values())
        gains = [(of.mean, each) for each, of in differences if of is not None and of.low is not None and of.low > 0]
        return max(gains, key=lambda pair: pair[0], default=(0.0, None))[1]

    def _difference(self, contrast: Contrast) -> float:
        """The pick minus the other where that is shown to differ, else 0."""
        if not contrast.differs or contrast.difference is None:
            return 0.0
        return contrast.difference.mean if contrast.name == self.pick else -contrast.difference.mean

    @property
    def smallest(self) -> str | None:
        """Of the pick and its ties the variant with the fewest parameters; None where that is the pick, or unknown."""
        names = [self.pick, *self.ties]
        if not self.ties or any(name not in self.parameters for name in names):
            return None
        best = min(names, key=lambda name: self.parameters[name])
        return best if self.parameters[best] < self.parameters[self.pick] else None


def make_claims(study: Study) -> Claims | None:
    """The claims of a study with tables; None where no variant has a test score."""
    ranked = [name for name, _ in ranking(study)]
    if not ranked:
        return None
    family = study.family
    contrasts = [] if family is None else [each for each in family.contrasts if each.difference is not None]
    better = tuple(each.name for each in contrasts if each.differs and each.verdict.startswith("better"))
    if len(ranked) == 1:
        pick, choice = ranked[0], "only"
    elif family is not None and family.chosen is not None:
        pick, choice = family.chosen, "held out"
    elif family is None or not contrasts:
        pick, choice = ranked[0], "largest"
    elif better:
        pick, choice = next(name for name in ranked if name in better), "better"
    else:
        pick, choice = family.baseline, "baseline"
    estimate = estimate_of(study, pick)
    several = len(study.seeds) > 1
    parameters = {run["variant"]: int(run["parameters"]) for run in study.runs if run.get("parameters") is not None}
    return Claims(
        pick,
        estimate,
        None if estimate.low is None else "seeds" if several else "rows",
        choice,
        study.baseline if family is None else family.baseline,
        better,
        against_baseline(study, pick),
        0 if family is None else family.tested,
        _rivals(study, pick, choice),
        parameters,
        _claim_gate(study, pick, choice, ranked),
    )


def _rivals(study: Study, pick: str, choice: Choice) -> dict[str, Contrast]:
    """The pick beside each other variant.

    Beside the baseline these are the comparisons of the study. A pick of held-out rows has a family of its own, by
    Holm. One that test rows had a part in is corrected for all pairs of variants, by Bonferroni.
    """
    if choice == "baseline" and study.family is not None:
        return {each.name: each for each in study.family.contrasts if each.difference is not None}
    scores: Mapping[str, Values] = paired_scores(study, study.row_scores)
    if pick not in scores:
        return {}
    over = "seeds" if len(study.seeds) > 1 else "rows"
    contrasts = [
        Contrast(pick, name, difference, over, study.margin)
        for name, values in scores.items()
        if name != pick and (difference := difference_of(scores[pick], values)) is not None
    ]
    corrected = correct(contrasts)
    if choice != "held out":
        pairs = len(scores) * (len(scores) - 1) // 2
        corrected = tuple(
            replace(
                each,
                p_holm=None
                if each.difference is None or each.difference.p is None
                else min(1.0, each.difference.p * pairs),
            )
            for each in corrected
        )
    return {each.reference: each for each in corrected}


def _claim_gate(study: Study, pick: str, choice: Choice, ranked: list[str]) -> GateClaims | None:
    held_out = [name for name, _ in ranking(study, "validation")]
    order = held_out if choice == "held out" else ranked
    mixtures = [name for name in order if has_learned_gate(study, name)]
    if not mixtures:
        return None
    mixture = pick if pick in mixtures else mixtures[0]
    selections = 1 if choice in ("held out", "only") else len(mixtures)
    oracle = oracle_of(study, mixture)
    gate = study.first_gate(mixture)
    collapse = study.table("collapse", variant=mixture, gate=gate, split="test")
    names = expert_names(study, mixture, str(gate))
    unused: dict[int, tuple[str, ...]] = {}
    for seed, of_seed in collapse.groupby("seed") if not collapse.empty else ():
        numbers = of_seed.loc[of_seed[["ignored", "starved"]].any(axis=1), "expert"]
        unused[int(seed)] = tuple(expert_label(names, int(number)) for number in numbers)
    experts = 0 if collapse.empty else int(collapse["expert"].max()) + 1
    controls = list_controls(study, mixture, selections)
    return GateClaims(mixture, controls, *((None, ()) if oracle is None else oracle), unused, experts)
