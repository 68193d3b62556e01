"""What a mixture is compared with to judge its gate: one expert, uniform weights, the gate alone and the oracle."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from moebius.lab.report.comparisons import paired_scores
from moebius.lab.report.expert_names import leaf_name
from moebius.lab.report.queries import estimate_of, measure_by_seed, ranking
from moebius.lab.report.source import Study
from moebius.lab.report.variant_sorts import has_uniform_weights, is_gate_alone, is_single
from moebius.lab.statistics.family import Contrast, Values, correct, difference_of
from moebius.lab.statistics.interval import Estimate, interval

ONE_EXPERT, UNIFORM, GATE_ALONE = "one expert", "uniform weights", "its gate alone"
BEST_EXPERT, MEAN_EXPERT = "its best expert by itself", "its experts by themselves on average"


@dataclass(frozen=True)
class Control:
    """Something without the mixture's gate, and the mixture's difference from it.

    Arguments:
        subject: in words, such as "uniform weights".
        variant: its name; None where it is a part of the mixture.
        estimate: of its test score.
        gain: mean of the mixture's score minus its score.
        contrast: the mixture minus this control, corrected; None where nothing can test it.
    """

    subject: str
    variant: str | None
    estimate: Estimate
    gain: float
    contrast: Contrast | None

    @property
    def verdict(self) -> str:
        """better, worse, level or not shown to differ: what the mixture is beside it; "untested" without a test."""
        return "untested" if self.contrast is None else self.contrast.verdict.removesuffix(" as trained")


def list_controls(study: Study, mixture: str, selections: int) -> tuple[Control, ...]:
    """The controls that a study has for a mixture, with the mixture's differences from them.

    Of several variants of one sort the one with the best mean counts, on held-out rows if there are any.

    Arguments:
        study: with tables.
        mixture: the variant.
        selections: number of mixtures of which test rows have picked this one; 1 where they had no part in it.

    Returns:
        One expert, uniform weights, the gate alone and the mixture's experts, as far as the study has them. p values
        are Holm's over these, times `selections`; those against the study's baseline are of its own family.
    """
    scores: Mapping[str, Values] = paired_scores(study, study.row_scores)
    singles = [name for name in study.variants if is_single(study, name)]
    sorts = {
        ONE_EXPERT: [name for name in singles if not is_gate_alone(study, name)],
        UNIFORM: [name for name in study.variants if has_uniform_weights(study, name)],
        GATE_ALONE: [name for name in singles if is_gate_alone(study, name)],
    }
    picks = {subject: pick for subject, names in sorts.items() if (pick := _best(study, names)) is not None}
    values: dict[str, Values | None] = {subject: scores.get(variant) for subject, variant in picks.items()}
    alone, by_seed = expert_alone(study, mixture)
    # An expert that was trained before may be a variant, too.
    if any(measure_by_seed(study, variant, study.score, "test") == by_seed for variant in picks.values()):
        by_seed = {}
    # A single seed says nothing of how an expert's rows differ from the mixture's.
    values |= {alone: by_seed if len(by_seed) > 1 else None} if by_seed else {}
    of_mixture = scores.get(mixture)
    in_family = {subject for subject, variant in picks.items() if study.family and variant == study.family.baseline}
    contrasts = {
        subject: Contrast(
            mixture, picks.get(subject, subject), difference, "rows" if len(study.seeds) == 1 else "seeds"
        )
        for subject, reference in values.items()
        if of_mixture is not None and reference is not None and subject not in in_family
        if (difference := difference_of(of_mixture, reference)) is not None
    }
    contrasts = {subject: replace(contrast, margin=study.margin) for subject, contrast in contrasts.items()}
    corrected = {
        subject: _times(contrast, selections)
        for subject, contrast in zip(contrasts, correct(list(contrasts.values())), strict=True)
    }
    controls = []
    for subject in values:
        variant = picks.get(subject)
        estimate = interval(list(by_seed.values())) if variant is None else estimate_of(study, variant)
        contrast = against_baseline(study, mixture) if subject in in_family else corrected.get(subject)
        gain = estimate_of(study, mixture).mean - estimate.mean
        if contrast is not None and contrast.difference is not None:
            gain = contrast.difference.mean
        controls.append(Control(subject, variant, estimate, gain, contrast))
    return tuple(controls)


def against_baseline(study: Study, variant: str) -> Contrast | None:
    """The variant minus the study's baseline, of its family of comparisons; None where that has none."""
    contrasts = () if study.family is None else study.family.contrasts
    return next((each for each in contrasts if each.name == variant and each.difference is not None), None)


def expert_alone(study: Study, mixture: str) -> tuple[str, dict[int, float]]:
    """The best expert by itself, chosen on held-out rows, and its test score by seed; without such rows their mean."""
    held_out = f"validation_{study.score}"
    pools = {
        run["seed"]: run["experts_alone"]
        for run in study.runs
        if run["variant"] == mixture and len(run.get("experts_alone") or ()) > 1
    }
    if any(expert.get(held_out) is None for pool in pools.values() for expert in pool):
        means = {seed: sum(expert[study.score] for expert in pool) / len(pool) for seed, pool in pools.items()}
        return MEAN_EXPERT, means
    best = {seed: max(pool, key=lambda expert: expert[held_out]) for seed, pool in pools.items()}
    names = {leaf_name(expert) for expert in best.values()}
    name = f" ({names.pop()})" if len(names) == 1 and None not in names else ""
    return f"{BEST_EXPERT}{name}", {seed: float(expert[study.score]) for seed, expert in best.items()}


def oracle_of(study: Study, mixture: str) -> tuple[Estimate, tuple[float, ...]] | None:
    """The oracle's score, and by seed what it has over the mixture; None where none was measured."""
    oracles = {
        run["seed"]: float(run["oracle"])
        for run in study.runs
        if run["variant"] == mixture and run.get("oracle") is not None
    }
    scores = measure_by_seed(study, mixture, study.score, "test")
    left = tuple(oracle - scores[seed] for seed, oracle in oracles.items() if seed in scores)
    return (interval(list(oracles.values())), left) if left else None


def _best(study: Study, names: list[str]) -> str | None:
    held_out = [name for name, _ in ranking(study, "validation") if name in names]
    ranked = [name for name, _ in ranking(study) if name in names]
    return (held_out if len(held_out) == len(names) else ranked)[0] if ranked else None


def _times(contrast: Contrast, selections: int) -> Contrast:
    raised = {
        name: None if p is None else min(1.0, p * selections)
        for name, p in (("p_holm", contrast.p_holm), ("p_level_holm", contrast.p_level_holm))
    }
    return replace(contrast, **raised)
