"""What is lost and saved when exactly one expert runs for an image."""

from collections.abc import Mapping
from dataclasses import dataclass

from moebius.lab.report.blocks import Block, Panels, Section, Table, Text
from moebius.lab.report.charts.active_experts import active_chart
from moebius.lab.report.figures import Figure
from moebius.lab.report.frames import make_frame
from moebius.lab.report.numbers import NONE, count, rate, signed, with_interval
from moebius.lab.report.queries import measure_by_seed
from moebius.lab.report.source import Study
from moebius.lab.statistics.interval import Estimate, interval

ORDER = 22
# A smaller gap between floor and bound is no measure of anything.
LEAST_GAP = 0.005


@dataclass(frozen=True)
class Line:
    """What one variant does, by seed.

    Arguments:
        trained, one: test accuracy as trained, and with exactly one expert.
        active: mean number of experts that run for a test image as trained.
        collapsed: in how many seeds an expert wins under 2 % of the test images.
        effective: effective number of experts, of how many; None for a single one.
    """

    trained: Mapping[int, float]
    one: Mapping[int, float]
    active: float
    collapsed: int
    effective: str | None


def section(study: Study) -> Section | None:
    """Accuracy as trained and with one expert, what it costs, and both against each other."""
    ends = (study.recipe.get("report") or {}).get("one_expert") or {}
    lines = {variant: line for variant in study.variants if (line := _line(study, variant)) is not None}
    if not ends or not lines:
        return None
    floor, bound = (lines[ends[end]].trained if ends.get(end) in lines else {} for end in ("floor", "bound"))
    best = max((name for name in lines if lines[name].effective), key=lambda name: _mean(lines[name].one), default=None)
    columns = ["variant", "as trained", "exactly one expert", f"minus {ends['bound']}, paired", "of the gap closed"]
    columns += ["active experts", "seeds with an unused expert", "effective experts"]
    rows = [_row(variant, line, floor, bound) for variant, line in lines.items()]
    marked = [] if best is None else [list(lines).index(best)]
    said = (
        f"“Minus {ends['bound']}” and “gap closed” compare exactly one expert with {ends['bound']} as trained, seed by "
        f"seed; the gap is what {ends['bound']} has over {ends['floor']}. An expert is unused where it wins under 2 % "
        "of the test images. The marked line has the best mean with one expert."
    )
    blocks: list[Block] = [
        Panels([_figure(lines, ends)]),
        Table(
            "Test accuracy as trained, and with the one expert that each image's gate weighs most",
            columns,
            rows,
            marked=marked,
        ),
        Text(said),
    ]
    if study.costs:
        blocks += [_costs(study), Text(COSTS)]
    return Section("one-expert", "With exactly one expert", blocks)


COSTS = (
    "Per test image, the gate's own work counted: multiply-adds of products and convolutions, and time in a batch of "
    "256, the median of nine rounds in which all models take turns. Running only the chosen expert is exact: nothing "
    "is approximated."
)


def _line(study: Study, variant: str) -> Line | None:
    trained = measure_by_seed(study, variant, "accuracy", "test")
    one = measure_by_seed(study, variant, "one_expert", "accuracy") or trained
    active = list(measure_by_seed(study, variant, "active_experts", "test").values())
    if not trained or not active:
        return None
    where = {"variant": variant, "gate": "root", "split": "test"}
    collapse, entropy = study.table("collapse", **where), study.table("entropy", **where)
    starved = 0 if collapse.empty else int(collapse.groupby("seed")["starved"].any().sum())
    several = not entropy.empty and entropy["experts"].max() > 1
    effective = f"{entropy['effective_experts'].mean():.1f} of {entropy['experts'].max()}" if several else None
    return Line(trained, one, sum(active) / len(active), starved, effective)


def _row(variant: str, line: Line, floor: Mapping[int, float], bound: Mapping[int, float]) -> list[str]:
    below = [line.one[seed] - bound[seed] for seed in line.one if seed in bound]
    against = interval(below) if below else None
    gap = _mean(bound) - _mean(floor) if bound and floor else 0.0
    return [
        variant,
        with_interval(interval(list(line.trained.values()))),
        with_interval(interval(list(line.one.values()))),
        _signed(against) if against else NONE,
        f"{(_mean(line.one) - _mean(floor)) / gap:.0%}".replace("-", "−") if gap >= LEAST_GAP else NONE,
        f"{line.active:.2f}",
        f"{line.collapsed} of {len(line.trained)}" if line.effective else NONE,
        line.effective or NONE,
    ]


def _signed(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return signed(estimate.mean)
    return f"{signed(estimate.mean)} [{signed(estimate.low)}, {signed(estimate.high)}]"


def _mean(by_seed: Mapping[int, float]) -> float:
    return sum(by_seed.values()) / len(by_seed)


def _costs(study: Study) -> Table:
    rows = []
    for variant in (name for name in study.variants if name in study.costs):
        trained, one = (study.costs[variant].get(way) for way in ("as_trained", "one_expert"))
        assert trained is not None
        one = one or trained
        rows.append(
            [
                variant,
                count(trained["multiply_adds"]),
                count(one["multiply_adds"]),
                f"{trained['microseconds']:.1f}",
                f"{one['microseconds']:.1f}",
            ]
        )
    columns = ["variant", "multiply-adds", "with one expert", "µs", "µs with one expert"]
    return Table("What a test image costs", columns, rows)


def _figure(lines: Mapping[str, Line], ends: Mapping[str, str]) -> Figure:
    points = [
        (variant, way, active, _mean(scores))
        for variant, line in lines.items()
        for way, active, scores in (("as trained", line.active, line.trained), ("exactly one expert", 1.0, line.one))
    ]
    frame = make_frame(points, ["variant", "way", "active", "accuracy"])
    said = "; ".join(
        f"{name}: {rate(_mean(one.trained))} with {one.active:.1f}, {rate(_mean(one.one))} with one"
        for name, one in lines.items()
    )
    caption = (
        "Test accuracy against the mean number of experts that run for an image: filled = as trained, ring = the same "
        f"model with exactly one expert. Dashed: {ends['floor']} and {ends['bound']} as trained. Means over seeds."
    )
    levels = {name: _mean(lines[name].trained) for name in (ends["floor"], ends["bound"]) if name in lines}
    return Figure(
        "one-expert", active_chart(frame, levels), caption, f"Test accuracy against active experts: {said}.", tall=True
    )
