"""A measurement in a terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moebius.lab.bench.measure import ACTIVE, PARAMETERS, Bench, Cost, verdict
from moebius.lab.bench.timing import Row


def show(measured: Bench, console: Console) -> None:
    """Print tables of times and work, what did not run, the floor of the memory, the choice, and whether it pays."""
    for mode in measured.chunks:
        console.print(_times(measured, mode))
    console.print(_work(measured))
    for name, why in measured.not_run.items():
        console.print(f"{name}: {escape(why)}", style="dim")
    if measured.estimated is not None:
        console.print(
            f"{PARAMETERS}: not run, {measured.problem.experts / measured.problem.k:.0f} times the active work; "
            f"about {_digits(measured.estimated)} ms by that",
            style="dim",
        )
    for mode, chunk in measured.chunks.items():
        where = "all rows at once" if chunk == measured.problem.assignments else f"{chunk:,} rows at a time"
        console.print(f"{ACTIVE}: {mode} is fastest with {where}", style="dim")
    memory, floor = measured.memory, measured.floor
    console.print(
        f"\nmemory: writes {memory['write'] / 1e9:.1f} GB/s, copies {memory['copy'] / 2e9:.1f} GB/s. Floor: "
        f"{_digits(floor['read'])} ms to read the weights once, {_digits(floor['write'])} ms to write their gradients."
    )
    console.print(
        f"rows of the busiest expert: {measured.busiest:,} of {measured.problem.assignments:,}; "
        f"experts without rows: {measured.idle:,}"
    )
    console.print(f"auto picks [bold]{measured.chosen.name}[/]: {escape(measured.chosen.reason)}")
    console.print(f"[bold]{escape(verdict(measured))}[/]")


def _times(measured: Bench, mode: str) -> Table:
    table = Table(title=f"{mode}: median over rounds, smallest … largest", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("way", overflow="fold")
    for heading in ("ms", "× equal work", "× equal parameters"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cost in measured.costs:
        row, beside = cost.times[mode], (cost.active.get(mode), cost.parameters.get(mode))
        figures = ["–" if other is None else _figure(other, other.ratio) for other in beside]
        table.add_row(_name(measured, cost), _figure(row, row.value), *figures)
    return table


def _work(measured: Bench) -> Table:
    table = Table(title="work: forward, and gradients of the weights", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("way", overflow="fold")
    for heading in ("10⁹ multiply-adds", "MB of weights read", "MB of gradients"):
        table.add_column(heading, justify="right")
    for cost in measured.costs:
        sizes = (cost.multiply_adds / 1e9, cost.read / 1e6, cost.written / 1e6)
        table.add_row(_name(measured, cost), *map(_digits, sizes))
    return table


def _name(measured: Bench, cost: Cost) -> str:
    return f"[bold]{cost.name}[/] ← auto" if cost.name == measured.chosen.name else cost.name


def _figure(row: Row, value: float | None) -> str:
    assert value is not None
    low, high = (_digits(bound) for bound in row.spread)
    return f"{_digits(value)} [dim]{low}…{high}[/]"


def _digits(value: float) -> str:
    """Three digits that count, or all before the point.

    Example:
        >>> _digits(0.0123), _digits(1.234), _digits(1234.5)
        ('0.012', '1.23', '1,234')
    """
    places = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:,.{places}f}"
