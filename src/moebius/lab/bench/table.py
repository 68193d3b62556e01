"""The tables that `moebius bench` prints."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moebius.lab.bench.bare import segment_rows
from moebius.lab.bench.measure import ACTIVE, PARAMETERS, Bench, Cost, verdict
from moebius.lab.bench.timing import Measurement


def print_tables(measured: Bench, console: Console) -> None:
    """Print times, work, executions not run, the lower bounds by memory, the choice of `auto`, and the verdict."""
    for mode in measured.chunks:
        console.print(_time_table(measured, mode))
    console.print(_work_table(measured))
    for name, reason in measured.not_run.items():
        console.print(f"{name}: {escape(reason)}", style="dim")
    if measured.estimated is not None:
        console.print(
            f"{PARAMETERS}: not run, {measured.workload.experts / measured.workload.k:.0f} times the active work; "
            f"about {_format_number(measured.estimated)} ms by that",
            style="dim",
        )
    for mode, chunk in measured.chunks.items():
        size = "all rows at once" if chunk == measured.workload.assignments else f"{chunk:,} rows at a time"
        console.print(f"{ACTIVE}: {mode} is fastest with {size}", style="dim")
    memory, floor = measured.memory, measured.floor
    console.print(
        f"\nmemory: writes {memory['write'] / 1e9:.1f} GB/s, copies {memory['copy'] / 2e9:.1f} GB/s. Floor: "
        f"{_format_number(floor['read'])} ms to read the weights once, "
        f"{_format_number(floor['write'])} ms to write their gradients."
    )
    console.print(
        f"rows of the busiest expert: {measured.busiest:,} of {measured.workload.assignments:,}; "
        f"experts without rows: {measured.idle:,}"
    )
    console.print(f"auto picks [bold]{measured.chosen.name}[/]: {escape(measured.chosen.reason)}")
    cost = measured.find_cost(measured.chosen.name)
    assert cost is not None
    figures = [f"{_format_figure(row, row.ratio)} {mode}" for mode, row in cost.bare.items()]
    console.print(f"× bare products of {segment_rows(measured.workload):,} rows an expert: {', '.join(figures)}")
    console.print(f"[bold]{escape(verdict(measured))}[/]")


def _time_table(measured: Bench, mode: str) -> Table:
    table = Table(title=f"{mode}: median over rounds, smallest … largest", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("way", overflow="fold")
    for heading in ("ms", "× equal work", "× equal parameters"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cost in measured.costs:
        row, comparisons = cost.times[mode], (cost.active.get(mode), cost.parameters.get(mode))
        figures = ["–" if versus is None else _format_figure(versus, versus.ratio) for versus in comparisons]
        table.add_row(_format_name(measured, cost), _format_figure(row, row.value), *figures)
    return table


def _work_table(measured: Bench) -> Table:
    table = Table(title="work: forward, and gradients of the weights", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("way", overflow="fold")
    for heading in ("10⁹ multiply-adds", "MB of weights read", "MB of gradients"):
        table.add_column(heading, justify="right")
    for cost in measured.costs:
        sizes = (cost.multiply_adds / 1e9, cost.read / 1e6, cost.written / 1e6)
        table.add_row(_format_name(measured, cost), *map(_format_number, sizes))
    return table


def _format_name(measured: Bench, cost: Cost) -> str:
    return f"[bold]{cost.name}[/] ← auto" if cost.name == measured.chosen.name else cost.name


def _format_figure(row: Measurement, value: float | None) -> str:
    assert value is not None
    low, high = (_format_number(end) for end in row.spread)
    return f"{_format_number(value)} [dim]{low}…{high}[/]"


def _format_number(value: float) -> str:
    """A number with at most three decimal places, the fewer the larger it is.

    Example:
        >>> _format_number(0.0123), _format_number(1.234), _format_number(1234.5)
        ('0.012', '1.23', '1,234')
    """
    places = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:,.{places}f}"
