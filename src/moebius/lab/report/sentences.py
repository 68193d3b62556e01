"""The claims of the first screen in sentences."""

from moebius.lab.report.claims import Claims, GateClaims
from moebius.lab.report.controls import Control
from moebius.lab.report.numbers import (
    bracket,
    count,
    names_of,
    p_text,
    rate,
    signed_with_interval,
    with_interval,
)
from moebius.lab.statistics.difference import Difference
from moebius.lab.statistics.interval import Estimate, interval

# Up to so many unused experts are named.
NAMED = 6
GATE_LEADS = {
    "pays": "The gate pays:",
    "pays in part": "The gate pays in part:",
    "not shown": "The gate is not shown to pay:",
    "does not pay": "The gate does not pay:",
    "untested": "Whether the gate pays is not tested:",
}


def first_sentences(claims: Claims, measure: str) -> list[tuple[str, str]]:
    """Bold words and the text after them: which model to take, how sure that is, and whether the gate pays.

    Arguments:
        claims: of the study.
        measure: the score in words.
    """
    sure = _sureness(claims)
    points = [_choice(claims, measure)]
    points += [("How sure:", sure)] if sure else []
    return [*points, _gate(claims.gate)]


def _choice(claims: Claims, measure: str) -> tuple[str, str]:
    score = f"test {measure} {_score_text(claims)}"
    pick, baseline = claims.pick, claims.baseline
    if claims.choice == "only":
        return f"{pick}:", f"{score}. It is the only variant, so nothing was chosen."
    if claims.choice == "held out":
        return f"Take {pick}:", f"{score}. Held-out rows chose it; the test rows had no part in that."
    held_out = "no rows were held out to choose one (data.validation)"
    if claims.choice == "largest":
        rest = f"{held_out}, and nothing here can tell the variants apart"
        return f"{pick} has the largest mean:", f"{score}. That is no reason to take it: {rest}."
    if claims.choice == "baseline":
        others = "no other variant is" if len(claims.rivals) > 1 else "the other variant is not"
        return f"Take {pick}, the baseline:", f"{score}. On test rows {others} shown to be better; {held_out}."
    if len(claims.better) == 1:
        return f"Take {pick}:", f"{score}. It is the only one shown to be better than {baseline}; {held_out}."
    why = f"of the {len(claims.better)} variants shown to be better than {baseline} it has the largest mean on test"
    return f"Take {pick}:", f"{score}. {why[0].upper()}{why[1:]}, which is partly chance: {held_out}."


def _score_text(claims: Claims) -> str:
    """The score with its interval, and what the interval is over."""
    estimate = claims.estimate
    if claims.over is None:
        return f"{rate(estimate.mean)} (one seed, no interval)"
    if claims.over == "seeds":
        return f"{with_interval(estimate)} (mean of {estimate.count} seeds, 95 % interval)"
    return f"{with_interval(estimate)} (one seed; 95 % interval over {estimate.count:,} test rows)"


def _sureness(claims: Claims) -> str:
    parts = [_beside_baseline(claims)] if claims.contrast is not None else []
    # The first part speaks of the baseline.
    above, ties, beaten = (
        [name for name in names if claims.contrast is None or name != claims.baseline]
        for names in (claims.above, claims.ties, claims.beaten)
    )
    others = len(above) + len(ties) + len(beaten)
    parts += [f"worse than {names_of(above)}"] if above else []
    if ties:
        parts.append(f"not told apart from {_all_or_names(ties, others)}")
    if claims.smallest is not None:
        sizes = f"{count(claims.parameters[claims.smallest])} parameters to its {count(claims.parameters[claims.pick])}"
        parts.append(f"of these {claims.smallest} is the smallest ({sizes})")
    if beaten:
        parts.append(f"better than {_all_or_names(beaten, others)}")
    sentence = "; ".join(parts)
    text = f"{sentence}." if sentence else ""
    leading = claims.leading
    if leading is not None and leading.difference is not None:
        text += (
            f" {leading.name} is ahead by {_by(leading.difference, 'better')}, which {claims.estimate.count} seeds do "
            "not show after the correction: train more (--seeds)."
        )
    if claims.over == "rows":
        text += " One seed: another training may change the order (--seeds 5)."
    return text.strip()


def _all_or_names(names: list[str], others: int) -> str:
    if len(names) < others or others <= 2:
        return names_of(names)
    return f"any of the {others} others"


def _beside_baseline(claims: Claims) -> str:
    contrast = claims.contrast
    assert contrast is not None
    assert contrast.difference is not None
    verdict = contrast.verdict.removesuffix(" as trained")
    if verdict == "level":
        lead = f"level with {claims.baseline} within {rate(contrast.margin)}"
    elif verdict == "not shown to differ":
        lead = f"not told apart from {claims.baseline}"
    else:
        lead = f"{verdict} than {claims.baseline} by"
    p = "every seed by the same, which no test can judge"
    if contrast.p_holm is not None:
        # The p value of a level pair is that of levelness.
        tested = contrast.p_level_holm if verdict == "level" else contrast.p_holm
        p = f"p {p_text(tested)}{f', Holm for {claims.comparisons} comparisons' * (claims.comparisons > 1)}"
    return f"{lead} {_by(contrast.difference, verdict)} ({p})"


def _by(difference: Difference, verdict: str) -> str:
    """A difference and its interval: without signs where the words before it give the direction."""
    if verdict in ("better", "worse"):
        turned = abs(difference.mean)
        low, high = difference.low, difference.high
        if low is None or high is None:
            return rate(turned)
        ends = (low, high) if difference.mean > 0 else (-high, -low)
        return f"{rate(turned)} {bracket(Estimate(turned, turned, *ends, difference.count))}"
    return f"at {signed_with_interval(difference)}"


def _gate(gate: GateClaims | None) -> tuple[str, str]:
    if gate is None:
        return "No gate to judge:", "no variant has a learned gate over several experts."
    parts = [_beside(control) for control in gate.controls]
    text = f"{gate.mixture} is {'; '.join(parts)}." if parts else "no variant is one expert or has equal weights."
    extra = [_oracle(gate), _unused(gate)]
    return GATE_LEADS[gate.verdict], " ".join([text, *(part for part in extra if part)])


def _beside(control: Control) -> str:
    name = f"{control.subject} ({control.variant})" if control.variant else control.subject
    difference = None if control.contrast is None else control.contrast.difference
    if difference is None:
        side = "above" if control.gain > 0 else "below"
        return f"{rate(abs(control.gain))} {side} {name}, untested" if control.gain else f"equal to {name}"
    if control.verdict == "level":
        assert control.contrast is not None
        return f"level with {name} within {rate(control.contrast.margin)} {_by(difference, 'level')}"
    if control.verdict == "not shown to differ":
        return f"not told apart from {name} {_by(difference, control.verdict)}"
    return f"{control.verdict} than {name} by {_by(difference, control.verdict)}"


def _oracle(gate: GateClaims) -> str:
    if gate.oracle is None:
        return ""
    left = interval(list(gate.left))
    lead = f"A gate that always asks a right expert, where there is one, has {rate(gate.oracle.mean)}"
    if all(abs(each) < 1e-9 for each in gate.left):
        return f"{lead}, the same: asking one expert, no gate can do better."
    # The oracle of a single seed is no estimate over seeds: its rows are the mixture's.
    if left.low is not None and left.high is not None and left.low < 0 < left.high:
        return f"{lead}, not told apart from it ({signed_with_interval(left)})."
    if left.mean > 0:
        return f"{lead}: {signed_with_interval(left)} is left."
    return f"{lead}, {rate(-left.mean)} less: by mixing, it does better than any choice of one expert."


def _unused(gate: GateClaims) -> str:
    counts = sorted({len(names) for names in gate.unused.values() if names})
    if not counts:
        return ""
    amount = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    if len(gate.unused) == 1:
        names = [name.removeprefix("expert ") for name in next(iter(gate.unused.values()))]
        return f"It leaves {amount} of {gate.experts} experts unused ({names_of(names, NAMED)})."
    seeds = sum(bool(names) for names in gate.unused.values())
    return f"It leaves {amount} of {gate.experts} experts unused in {seeds} of {len(gate.unused)} seeds."
