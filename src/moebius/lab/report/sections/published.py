"""Published figures beside those of the study."""

from moebius.lab.report.blocks import Block, Points, Section, Table, Text
from moebius.lab.report.numbers import NONE, listing, rate, signed, with_interval
from moebius.lab.report.published import (
    TOLERANCE,
    MatchedRates,
    PublishedScore,
    compare_scores,
    match_rates,
    published_of,
)
from moebius.lab.report.source import Study, measure_words

ORDER = 21


def section(study: Study) -> Section | None:
    """Scores, activation rates and ignored experts as published and as here, and whether they agree."""
    spec = study.recipe.get("published") or {}
    if not spec:
        return None
    parts = [str(spec.get("source") or "").rstrip("."), str(spec.get("note") or "").rstrip(".")]
    blocks: list[Block] = [Text(". ".join(part for part in parts if part) + ".")]
    changed = [f"preset {study.about['preset']}"] if study.about.get("preset") else []
    changed += ["the values of the command line"] if study.about.get("overrides") else []
    if changed:
        blocks.append(Text(f"This study ran with {listing(changed)}, so it need not be the published one."))
    scores, matches = compare_scores(study), match_rates(study)
    if scores:
        blocks += [Text(_score_note(study)), _score_table(scores)]
    if matches:
        blocks += [Text(_rate_note()), *(_rate_table(study, name, matches) for name in _names(matches))]
        blocks.append(Points([(f"{name}:", _count_alike(name, matches)) for name in _names(matches)]))
    if table := _ignored_table(study):
        blocks.append(table)
    notes = [(f"{name}:", str(each["note"])) for name, each in published_of(study).items() if each.get("note")]
    blocks += [Points(notes)] if notes else []
    return Section("published", "Beside the published figures", blocks)


def _score_note(study: Study) -> str:
    judged = (
        "A published figure is that of one run. It lies inside where one more run of ours would: mean ± t·s·√(1 + 1/n) "
        "over n seeds, 95 %. That interval has what seeds change, and not what else differs between the two studies."
    )
    alone = "A published figure is that of one run, and so is ours: one seed does not tell how much runs differ."
    return judged if len(study.seeds) > 1 else alone


def _score_table(scores: list[PublishedScore]) -> Table:
    rows = []
    for score in scores:
        split, _, measure = score.measure.partition("_")
        gap = signed(score.ours.mean - score.published) if score.ours else NONE
        ends = f"[{rate(score.low)}, {rate(score.high)}]" if score.low is not None else NONE
        inside = {None: NONE, True: "yes", False: "no"}[score.lies_inside]
        ours = with_interval(score.ours) if score.ours else NONE
        rows.append(
            [score.variant, f"{measure_words(measure)}, {split}", rate(score.published), ours, gap, ends, inside]
        )
    columns = ["variant", "figure", "published", "here", "here − published", "one more run", "published lies inside"]
    return Table("Published figures and ours, with the 95 % interval of the mean over seeds", columns, rows, 2)


def _rate_note() -> str:
    return (
        "Activation rates on test rows, of the first gate. Numbers of experts are arbitrary, so each seed's experts "
        "are matched with the published ones, by the assignment with the smallest sum of differences; the order below "
        "is the published one. Seeds differ in kind and not only in amount, so no interval over them is drawn. A seed "
        f"looks like the published gate if no rate differs by more than {rate(TOLERANCE)}."
    )


def _rate_table(study: Study, variant: str, matches: list[MatchedRates]) -> Table:
    published = published_of(study)[variant]["activation"]
    seeds = [match for match in matches if match.variant == variant]
    rows, shades = [], []
    for domain in seeds[0].rates:
        lines = [("published", published[domain])] + [(f"seed {match.seed}", match.rates[domain]) for match in seeds]
        for name, rates in lines:
            rows.append([domain, name, *map(rate, rates)])
            shades.append([None, None, *map(float, rates)])
    experts = [f"expert {letter}" for letter in _letters(len(rows[0]) - 2)]
    return Table(f"{variant}: activation rates, experts matched", ["data set", "", *experts], rows, 2, shades=shades)


def _letters(count: int) -> list[str]:
    """A, B, … for matched experts: numbers are those of the files, in which they are not matched."""
    return [chr(ord("A") + place) if count <= 26 else str(place) for place in range(count)]


def _names(matches: list[MatchedRates]) -> list[str]:
    return list(dict.fromkeys(match.variant for match in matches))


def _count_alike(variant: str, matches: list[MatchedRates]) -> str:
    seeds = [match for match in matches if match.variant == variant]
    alike = sum(match.is_alike for match in seeds)
    nearest = min(seeds, key=lambda match: match.difference)
    text = f"{alike} of {len(seeds)} seed{'s' * (len(seeds) > 1)} look{'s' * (alike == 1)} like the published gate"
    return f"{text}; the nearest, seed {nearest.seed}, differs by {rate(nearest.difference)} at most."


def _ignored_table(study: Study) -> Table | None:
    frame, rows = study.table("collapse", split="test"), []
    for name, spec in published_of(study).items():
        if spec.get("ignored") is None:
            continue
        ours = NONE
        if len(frame):
            lines = frame[(frame["variant"] == name) & (frame["gate"] == study.first_gate(name))]
            counts = lines.groupby("seed")["ignored"].sum()
            ours = f"{int((counts >= spec['ignored']).sum())} of {len(counts)}" if len(counts) else NONE
        rows.append([name, str(spec["ignored"]), ours])
    if not rows:
        return None
    columns = ["variant", "published: experts ignored", "here: seeds with at least as many"]
    return Table("Experts that are ignored: rates of about 0 on all data sets", columns, rows)
