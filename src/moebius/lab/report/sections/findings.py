"""The doctor's findings: what gates and experts suffer from, as far as the rows of finished runs tell."""

from collections.abc import Iterator, Mapping
from typing import Any

from moebius.kit.commands import command
from moebius.kit.registry import find, kinds
from moebius.lab.report.blocks import Block, Code, Details, Heading, Section, Table, Text
from moebius.lab.report.expert_names import title_of
from moebius.lab.report.numbers import listing
from moebius.lab.report.queries import ranking
from moebius.lab.report.shown_variants import shown_variants
from moebius.lab.report.source import Study

ORDER = 56
ROOM = "illnesses"


def section(study: Study) -> Section | None:
    """The illnesses of the finished runs by code, those that showed while training, and how to examine a run fully."""
    examined = [run for run in study.runs if "findings" in run]
    watched = [run for run in study.runs if any(epoch.get("gates") for epoch in run.get("epochs") or ())]
    if not examined and not watched:
        return None
    blocks: list[Block] = []
    by_code: dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for run in examined:
        for finding in run["findings"]:
            by_code.setdefault(finding["code"], []).append((run, finding))
    if examined and not by_code:
        blocks.append(Text("Nothing was found in the gates and experts of the finished runs."))
    # What ails the variants that the page shows at length comes first; the rest is behind a line to open.
    shown = shown_variants(study, {run["variant"] for run in examined})
    first = {code for code, findings in by_code.items() if any(run["variant"] in shown for run, _ in findings)}
    for code in sorted(first):
        findings = sorted(by_code[code], key=lambda pair: pair[0]["variant"] not in shown)
        blocks += _code_blocks(study, code, findings)
    others = sorted(set(by_code) - first)
    if others:
        rest = [block for code in others for block in _code_blocks(study, code, by_code[code])]
        names = listing([f"{code} {by_code[code][0][1]['kind']}" for code in others])
        blocks.append(Details(f"In other variants: {names}", rest))
    epochs = _epoch_table(study)
    if epochs is not None:
        blocks += [Details("What showed while training", [epochs])] if by_code else [epochs]
    elif not examined:
        blocks.append(Text("Nothing showed in the weights of the gates while they were trained."))
    return Section("findings", "What the doctor finds", [*blocks, *_command_blocks(study, bool(examined))])


def _code_blocks(
    study: Study, code: str, findings: list[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> Iterator[Block]:
    """A table of the gates that have an illness, and what to try."""
    first = findings[0][1]
    yield Heading(f"{code} {first['kind']}")
    yield Text(_meaning(code))
    groups: dict[tuple[str, str], list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for run, finding in findings:
        groups.setdefault((run["variant"], finding["gate"]), []).append((run, finding))
    rows = []
    for (variant, gate), of_gate in groups.items():
        finding = of_gate[0][1]
        seeds = len({run["seed"] for run, _ in of_gate})
        interval = f"{_plain(finding['effect'])} [{_plain(finding['low'])}, {_plain(finding['high'])}]"
        null = _plain(finding["null"])
        rows.append([title_of(study, variant, gate), f"{seeds} of {len(study.seeds_of(variant))}"])
        rows[-1] += [finding["evidence"], interval, null]
    several = len(study.seeds) > 1
    caption = f"{first['effect_name']}, with its 99 % interval, beside {first['null_model']}"
    caption += ": the first of these seeds" if several else ""
    columns = ["gate", "seeds", "seen", "figure", "null"]
    yield Table(caption[:1].upper() + caption[1:], columns, rows, wraps=True)
    remedies = list(dict.fromkeys(finding["remedy"] for _, finding in findings))
    yield Text(f"Try: {remedies[0]}.")


def _epoch_table(study: Study) -> Table | None:
    """Codes that the weights showed after epochs, by variant and gate; None where there are none."""
    lines: dict[tuple[str, str, str], list[tuple[int, int, bool]]] = {}
    for run in study.runs:
        for epoch in run.get("epochs") or ():
            for gate, codes in (epoch.get("findings") or {}).items():
                for code in codes.split():
                    is_reported = epoch["epoch"] == run.get("epoch")
                    lines.setdefault((run["variant"], gate, code), []).append(
                        (run["seed"], epoch["epoch"], is_reported)
                    )
    rows = []
    for (variant, gate, code), seen in lines.items():
        seeds, numbers = {seed for seed, _, _ in seen}, [epoch for _, epoch, _ in seen]
        end = len({seed for seed, _, is_reported in seen if is_reported})
        span = f"{min(numbers)}" if min(numbers) == max(numbers) else f"{min(numbers)} … {max(numbers)}"
        count = len(study.seeds_of(variant))
        kind = _kinds().get(code, ("", ""))[0]
        rows.append([title_of(study, variant, gate), f"{code} {kind}".strip(), f"{len(seeds)} of {count}"])
        rows[-1] += [span, f"{end} of {count}"]
    if not rows:
        return None
    columns = ["gate", "finding", "seeds", "epochs", "at the reported epoch"]
    return Table("What the weights of gates showed after epochs, on rows that are not trained on", columns, rows, 2)


def _command_blocks(study: Study, has_findings: bool) -> Iterator[Block]:
    if study.about.get("reference") == "mb.fit":
        yield Text("`mb.diagnose(model, data)` gives the same with all tables; `.try_remedies()` tries what helps.")
        return
    best = next((variant for variant, _ in ranking(study)), study.variants[0])
    run = next(run for run in study.runs if run["variant"] == best)
    lead = "These tests need no pass of the model. " if has_findings else ""
    yield Text(
        f"{lead}The full examination also tries other routes, follows gradients and asks each expert on rows that it "
        "did not get; with --try it fits what helps. DIR is the folder of this page:"
    )
    yield Code(command("moebius", "diagnose", f"DIR/{run.get('point', best)}/seed-{run['seed']}", "--try"))


def _meaning(code: str) -> str:
    """The first sentence of what an illness is."""
    return _kinds().get(code, ("", ""))[1]


def _kinds() -> dict[str, tuple[str, str]]:
    """Code → name of the illness, and its first sentence. The room is known by the registry alone."""
    facts = {}
    for kind in kinds(ROOM):
        test: Any = find(ROOM, kind)
        meaning = (test.__doc__ or "").strip().partition("\n\n")[0].replace("\n", " ")
        facts[test.illness.code] = (kind.replace("_", " "), meaning)
    return facts


def _plain(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
