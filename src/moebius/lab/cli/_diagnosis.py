"""What `moebius diagnose` prints: a block for one run, a table over several."""

import re
from collections.abc import Sequence
from statistics import mean

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from moebius.lab.console import PrintableConsole
from moebius.lab.doctor.gain import Gain
from moebius.lab.doctor.trial import Trial
from moebius.lab.illnesses._illness import Finding
from moebius.lab.study.diagnose_run import RunDiagnosis

SPLITS = {"validation": "held-out", "test": "test"}
WIDTH = 100


def print_diagnoses(console: Console, diagnoses: Sequence[RunDiagnosis], tried: bool) -> None:
    """Print one diagnosis in full, or what several have in common.

    Arguments:
        console: whose width counts, up to 100 columns.
        diagnoses: of one run or more.
        tried: whether remedies were tried.
    """
    console = PrintableConsole(file=console.file, width=min(console.width, WIDTH), highlight=False)
    if len(diagnoses) == 1:
        _print_one(console, diagnoses[0], tried)
    else:
        _print_several(console, diagnoses, tried)


def _print_one(console: Console, each: RunDiagnosis, tried: bool) -> None:
    gates = each.diagnosis.examinations
    count = f"{len(gates)} gate{'s' * (len(gates) != 1)}"
    console.print(f"[bold]{escape(str(each.run))}[/]: {count}, {_rows(each)}", soft_wrap=True)
    findings = each.diagnosis.findings
    if not findings:
        console.print("[green]Nothing found.[/]")
    for finding in findings:
        console.print()
        console.print(f"[bold yellow]{finding.code} {finding.kind}[/] [dim]·[/] {escape(finding.gate)}")
        console.print(Padding(_facts(finding), (0, 0, 0, 2)))
    if tried and findings:
        _print_trials(console, each.trials)
    elif any(finding.remedies for finding in findings):
        console.print("\n[dim]--try fits what can be tried on a half of these rows and measures it on the other.[/]")


def _rows(each: RunDiagnosis) -> str:
    of = f"{each.examined:,} of {each.count:,}" if each.examined < each.count else f"{each.count:,}"
    return f"{of} {SPLITS[each.split]} rows"


def _facts(finding: Finding) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim")
    grid.add_column()
    for name, text in (("seen", finding.evidence), ("test", finding.figures()), ("try", finding.remedy)):
        grid.add_row(name, escape(f"{text}."))
    return grid


def _print_trials(console: Console, trials: Sequence[Trial]) -> None:
    measured = next((trial for trial in trials if trial.model is not None), None)
    console.print()
    if measured is None:
        console.print("[bold]No remedy could be tried[/]")
    else:
        rows = f"{measured.rows:,} rows that none was fitted to"
        console.print(f"[bold]Tried[/], and measured on {rows} [dim](gain and its 95 % interval)[/]")
    for trial in trials:
        title = f"\n[bold cyan]{trial.remedy.replace('_', ' ')}[/] [dim]·[/] {escape(trial.gate)}"
        console.print(f"{title} [dim]for {trial.codes}[/]" if trial.codes else title)
        if trial.reason is not None:
            console.print(Padding(f"[dim]not tried:[/] {escape(trial.reason)}", (0, 0, 0, 2)))
            continue
        console.print(Padding(escape(trial.text_of_change), (0, 0, 0, 2)))
        grid = Table.grid(padding=(0, 2))
        for gain in (trial.score, trial.loss):
            if gain is not None:
                grid.add_row(gain.name, f"{gain.before:.3f} → {gain.after:.3f}", _colored(gain))
        if trial.score is None and trial.loss is not None:
            grid.add_row("answers", "all the same", "")
        console.print(Padding(grid, (0, 0, 0, 2)))
        if costs := trial.cost_lines():
            console.print(Padding(f"[dim]{', '.join(costs)}[/]", (0, 0, 0, 2)))


def _colored(gain: Gain) -> str:
    color = "green" if gain.low > 0 else "red" if gain.high < 0 else "dim"
    return f"[{color}]{gain.value:+.3f}[/] [dim]\\[{gain.low:+.3f}, {gain.high:+.3f}][/]"


def _print_several(console: Console, diagnoses: Sequence[RunDiagnosis], tried: bool) -> None:
    seeds: dict[str, int] = {}
    for each in diagnoses:
        seeds[each.variant] = seeds.get(each.variant, 0) + 1
    rows = _rows(diagnoses[0])
    console.print(f"[bold]{len(diagnoses)} runs[/] of {len(seeds)} variant{'s' * (len(seeds) != 1)}, {rows} of each\n")
    groups: dict[tuple[str, str, str, str], list[Finding]] = {}
    for each in diagnoses:
        for finding in each.diagnosis:
            groups.setdefault((each.variant, finding.code, finding.kind, finding.gate), []).append(finding)
    table = _table("variant", "finding", "gate", "seeds", "effect [range]")
    for (variant, code, kind, gate), findings in groups.items():
        values = [finding.effect for finding in findings]
        seen = f"{len({id(finding) for finding in findings})} of {seeds[variant]}"
        effect = escape(_range(values, ".3g"))
        table.add_row(escape(variant), f"[yellow]{code}[/] {kind}", escape(gate), seen, effect)
    for variant in seeds:
        if not any(group[0] == variant for group in groups):
            table.add_row(escape(variant), "[green]nothing found[/]", "", f"{seeds[variant]} of {seeds[variant]}", "")
    console.print(table)
    if tried and groups:
        _print_gains(console, diagnoses)
    console.print("[dim]One of the folders alone shows what was seen, the test, and what to try.[/]")


def _print_gains(console: Console, diagnoses: Sequence[RunDiagnosis]) -> None:
    groups: dict[tuple[str, str, str], list[Trial]] = {}
    for each in diagnoses:
        for trial in each.trials:
            groups.setdefault((each.variant, trial.remedy, trial.gate), []).append(trial)
    console.print("[bold]Tried[/] on rows that none was fitted to [dim](mean gain and its range over the runs)[/]\n")
    names_gates = len({gate for _, _, gate in groups}) > 1
    table = _table("variant", "remedy", *(["gate"] if names_gates else []), "runs", diagnoses[0].score_name, "loss")
    for (variant, remedy, gate), trials in groups.items():
        done = [trial for trial in trials if trial.model is not None]
        gains = [
            [gain.value for trial in done if (gain := getattr(trial, name)) is not None] for name in ("score", "loss")
        ]
        cells = [f"{len(done)}", *(escape(_range(values, "+.3f")) if values else "–" for values in gains)]
        place = [escape(gate)] if names_gates else []
        table.add_row(escape(variant), remedy.replace("_", " "), *place, *cells)
    console.print(table)


def _table(*names: str) -> Table:
    table = Table(*names, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    return table


def _range(values: Sequence[float], style: str) -> str:
    middle, low, high = (f"{value:{style}}" for value in (mean(values), min(values), max(values)))
    # Without the 0 before the point two of them fit beside each other.
    return re.sub(r"(?<![\d.])0\.", ".", middle if low == high else f"{middle} [{low}, {high}]")
