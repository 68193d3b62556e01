"""The model of costs: what it has to obey, and bytes that real processes hold and send."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from moebius.kit.errors import ArgumentError

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def folder():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield
        for name in [name for name in sys.modules if name.startswith("_scale_") or name == "scale"]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def model(folder):
    import _scale_job
    import _scale_model

    return SimpleNamespace(**{**vars(_scale_job), **vars(_scale_model)})


@pytest.fixture(scope="module")
def machines(folder):
    import _scale_machine

    return _scale_machine


@pytest.fixture(scope="module")
def h100(machines):
    return machines.find_machine("h100")


@pytest.fixture(scope="module")
def job(model):
    return model.Job(experts=64, dim=1024, hidden=512, layers=4, k=2, rows=4096)


@pytest.fixture(scope="module")
def pairs(model, h100):
    """The model's costs beside real steps on two processes."""
    import _scale_runs

    job = model.Job(8, 32, 64, layers=2, k=2, rows=2048, dense=32**2, format="fp32")
    layouts = [model.Layout(2, group, sharded) for group in (1, 2) for sharded in (False, True)]
    runs = _scale_runs.on_processes(2, _scale_runs.run_steps, [(job, layout) for layout in layouts], 1, 0)
    rows = zip(layouts, *runs, strict=True)
    return {layout.name: (model.cost(job, layout, h100), *of_ranks) for layout, *of_ranks in rows}


def test_states_are_the_bytes_that_real_processes_hold(pairs):
    assert [*pairs] == ["DDP", "FSDP2", "EP", "EP+FSDP2"]
    for predicted, *measured in pairs.values():
        assert [run.states for run in measured] == [predicted.memory.states] * 2
    assert len({measured.states for _, measured, _ in pairs.values()}) == 3  # both shard all: FSDP2, EP+FSDP2


def test_exchanged_bytes_are_those_that_real_processes_send(pairs):
    for name in ("EP", "EP+FSDP2"):
        predicted, *measured = pairs[name]
        # The router loads experts as it likes: over both processes half of the rows leave.
        assert sum(run.exchanged for run in measured) == pytest.approx(2 * predicted.exchanged, rel=0.05)
        assert predicted.exchanged > 0
    for name in ("DDP", "FSDP2"):
        assert [cost_or_run.exchanged for cost_or_run in pairs[name]] == [0, 0, 0]


def test_one_rank_sends_nothing(model, job, h100):
    alone = model.cost(job, model.Layout(1), h100)
    assert (alone.exchanged, alone.reduced, alone.exchange, alone.reduction, alone.load) == (0, 0, 0, 0, 1)
    assert alone.seconds == pytest.approx(alone.products + alone.optimizer + alone.calls)


def test_bytes_of_a_worked_case(model, job, h100):
    # 4 ranks: 4 trips in each of 4 layers of 4096 · 2 rows of 1024 numbers in bf16, of which 3 / 4 leave.
    shared = model.cost(job, model.Layout(4, 4), h100)
    assert shared.exchanged == 4 * 4 * (4096 * 2 * 1024 * 2) * 3 / 4
    # DDP sends each gradient, of 4 bytes, 2 · 3 / 4 times; FSDP2 gathers twice in bf16 and reduces once in fp32.
    assert model.cost(job, model.Layout(4), h100).reduced == job.parameters * 4 * 2 * 3 / 4
    assert model.cost(job, model.Layout(4, 1, True), h100).reduced == job.parameters * (2 + 2 + 4) * 3 / 4
    # Expert parallel alone reduces what is outside of the experts; a group of 2 its experts once more, to the other.
    rest, experts = job.layers * job.layer_rest, job.layers * job.layer_experts
    assert shared.reduced == rest * 4 * 2 * 3 / 4
    grouped = model.cost(job, model.Layout(4, 2), h100)
    assert grouped.reduced == rest * 4 * 2 * 3 / 4 + experts / 2 * 4 * 2 * 1 / 2


def test_recomputation_repeats_the_forward(model, job, h100):
    layout = model.Layout(8, 8)
    plain, repeated = (model.cost(replace(job, recompute=value), layout, h100) for value in (False, True))
    assert repeated.products == pytest.approx(plain.products * 4 / 3)
    assert repeated.exchanged == plain.exchanged * 6 / 4
    assert repeated.memory.activations < plain.memory.activations / 2
    assert repeated.memory.states == plain.memory.states


def test_memory_falls_with_ranks_where_parameters_are_shared(model, job, h100):
    def states(**kinds):
        return [model.cost(job, model.Layout(ranks, **{**kinds, "group": kinds["group"] or ranks}), h100).memory.states
                for ranks in (2, 4, 8, 16)]  # fmt: skip

    ddp, fsdp, ep = (states(group=1), states(group=1, sharded=True), states(group=None))
    assert len(set(ddp)) == 1
    assert fsdp == [ddp[0] // ranks for ranks in (2, 4, 8, 16)]
    assert ddp[0] > ep[0] > ep[1] > ep[2] > ep[3] > 16 * job.layers * job.layer_rest
    both = model.cost(job, model.Layout(16, 4, True), h100).memory.states
    assert both == fsdp[-1]


@pytest.mark.parametrize("group", [1, 8, 64])
def test_more_work_takes_longer_and_faster_machines_less(model, machines, job, h100, group):
    layout = model.Layout(64, group)
    price = lambda machine=h100, **values: model.cost(replace(job, **values), layout, machine)  # noqa: E731
    base = price()
    for larger in ({"rows": 8192}, {"hidden": 1024}, {"layers": 8}, {"k": 4}, {"gated": True}):
        assert price(**larger).seconds > base.seconds
        assert price(**larger).memory.total > base.memory.total
    assert price(format="fp32").products > base.products
    assert price(format="fp32").memory.activations == pytest.approx(2 * base.memory.activations, abs=2)
    slower = h100.model_copy(update={"between": machines.Link(latency=6e-6, bandwidth=1e9)})
    assert price(slower).seconds > base.seconds
    busy = h100.model_copy(update={"slowdowns": {1: 1.0, 8: 2.0}})
    assert price(busy).products == pytest.approx(2 * base.products)


def test_rows_of_many_ranks_make_products_of_experts_faster(model, job, machines):
    cpu = machines.find_machine("cpu")
    small = replace(job, dim=256, hidden=512, rows=256, format="fp32")
    ddp, shared = (model.cost(small, model.Layout(16, group), cpu).products for group in (1, 16))
    assert shared < ddp / 2  # 8 rows an expert; and 128


def test_collectives_inside_a_node_and_between_nodes(model, machines, h100):
    machine = h100.model_copy(
        update={
            "inside": [machines.Link(latency=1, bandwidth=100)],
            "between": machines.Link(latency=1000, bandwidth=10),
        }
    )
    seconds = lambda kind, members, inside: model.collective_seconds(machine, kind, 800, members, inside)  # noqa: E731
    assert [seconds(kind, 1, 8) for kind in ("all_reduce", "all_to_all", "all_gather")] == [0, 0, 0]
    assert seconds("all_reduce", 8, 8) == 2 * 7 * 1 + 2 * 800 * 7 / 8 / 100
    assert seconds("all_gather", 8, 8) == 7 * 1 + 800 * 7 / 8 / 100
    # Two nodes of 8: each rank goes on with an eighth.
    assert seconds("all_reduce", 16, 8) == seconds("all_reduce", 8, 8) + 2 * 1000 + 2 * 100 / 2 / 10
    # A tree of four nodes sends two messages one after another, there and back.
    assert seconds("all_reduce", 32, 8) == seconds("all_reduce", 8, 8) + 2 * 2 * 1000 + 2 * 100 * 3 / 4 / 10
    assert seconds("all_to_all", 16, 8) == 7 * 1 + 800 * 7 / 16 / 100 + 8 * 1000 + 800 * 8 / 16 / 10
    assert seconds("all_to_all", 4, 1) == 3 * 1000 + 800 * 3 / 4 / 10


def test_the_busiest_rank_by_chance_and_by_a_skewed_router(model, job):
    # The larger of two halves of N rows has N / 2 + √(N / 2π) in the mean.
    pair = replace(job, rows=512, k=2)
    expected = 1 + 2 / math.sqrt(2 * math.pi * 512 * 2 * 2)
    assert model.busiest_load(pair, model.Layout(2, 2), draws=4000) == pytest.approx(expected, abs=1e-3)
    layout = model.Layout(64, 64)
    even, skewed, worse = (model.busiest_load(replace(job, concentration=c), layout) for c in (None, 10, 1))
    assert 1 < even < skewed < worse < 64
    assert model.busiest_load(job, model.Layout(64)) == 1
    slow, fast = (model.cost(replace(job, concentration=c), layout, machine_of(job)) for c in (1, None))
    assert slow.products > fast.products
    assert slow.exchange > fast.exchange
    assert slow.memory.activations > fast.memory.activations


def machine_of(job):
    from _scale_machine import find_machine

    return find_machine("h100")


def test_rates_lie_on_what_was_measured_and_between(machines):
    cpu = machines.find_machine("cpu")
    rates = cpu.products["fp32"]
    assert [cpu.rate("fp32", rate.parameters, rate.rows) for rate in rates] == pytest.approx([r.flops for r in rates])
    low, high = [rate for rate in rates if rate.parameters == rates[0].parameters][-2:]
    between = cpu.rate("fp32", low.parameters, math.sqrt(low.rows * high.rows))
    assert between == pytest.approx(math.sqrt(low.flops * high.flops))
    assert {(link.kind, link.ranks) for link in cpu.inside} == {
        (kind, ranks) for kind in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all") for ranks in (2, 4)
    }


def test_the_faster_of_two_measurements_stays(machines):
    first = machines.find_machine("cpu")
    rates = [
        rate.model_copy(update={"flops": rate.flops * (2 if rate.rows > 8 else 0.5)}) for rate in first.products["fp32"]
    ]
    links = [
        link.model_copy(update={"latency": 2 * link.latency, "bandwidth": 2 * link.bandwidth}) for link in first.inside
    ]
    worse = {"bandwidth": first.bandwidth / 2, "call_seconds": first.call_seconds / 2}
    slower = {"slowdowns": {1: 1.0, 2: 0.9, 4: 99.0}, "products": {"fp32": rates}, "inside": links, **worse}
    merged = machines.merge_measurements(first, first.model_copy(update=slower))
    flops = [rate.flops * (2 if rate.rows > 8 else 1) for rate in first.products["fp32"]]
    assert [rate.flops for rate in merged.products["fp32"]] == flops
    assert [link.latency for link in merged.inside] == [link.latency for link in first.inside]
    assert [link.bandwidth for link in merged.inside] == [2 * link.bandwidth for link in first.inside]
    assert (merged.bandwidth, merged.call_seconds) == (first.bandwidth, first.call_seconds / 2)
    assert merged.slowdowns == {1: 1.0, 2: 1.0, 4: first.slowdowns[4]}


def test_links_are_those_of_the_collective_with_the_nearest_number_of_ranks(machines, h100):
    links = [machines.Link(kind="all_reduce", ranks=ranks, latency=0, bandwidth=ranks) for ranks in (2, 4)]
    machine = h100.model_copy(update={"inside": [*links, machines.Link(kind="all_to_all", latency=0, bandwidth=9)]})
    assert [machine.link_inside("all_reduce", ranks).bandwidth for ranks in (1, 2, 4, 8)] == [2, 2, 4, 4]
    assert machine.link_inside("all_to_all", 8).bandwidth == 9
    with pytest.raises(ArgumentError, match="inside: needs a link for all_gather"):
        machine.link_inside("all_gather", 2)


def test_a_rank_leaves_a_tenth_of_its_memory(model, job, h100):
    memory = model.cost(job, model.Layout(8, 8), h100).memory
    roomy, tight = (h100.model_copy(update={"memory": memory.total / share}) for share in (0.89, 0.91))
    assert model.fits(memory, roomy)
    assert not model.fits(memory, tight)


def test_reductions_hide_behind_a_share_of_the_products(model, job, h100):
    price = lambda overlap: model.cost(job, model.Layout(64), h100.model_copy(update={"overlap": overlap}))  # noqa: E731
    bare, hidden = price(0), price(0.5)
    assert hidden.reduction == pytest.approx(bare.reduction - 0.5 * bare.products)
    small = model.cost(replace(job, rows=2**20), model.Layout(64), h100)
    assert small.reduction == 0


def test_a_gpu_is_bound_by_its_memory_at_few_rows_and_by_its_peak_at_many(machines):
    gpu = machines.find_machine("h100", 0.5)
    assert gpu.rate("bf16", 10**6, 1e5) == pytest.approx(0.5 * 989e12)
    assert gpu.rate("bf16", 10**6, 2) == pytest.approx(2 * gpu.rate("bf16", 10**6, 1))
    assert np.isclose(gpu.rate("bf16", 10**6, 1), 6 / 8 * 0.8 * 3.35e12)


def test_what_cannot_be_is_refused(model, machines, job, h100, tmp_path):
    with pytest.raises(ArgumentError, match="experts: needs a number of experts that 6 ranks share evenly, got 64"):
        model.cost(job, model.Layout(6, 6), h100)
    with pytest.raises(ArgumentError, match="group: needs a divisor of the 6 ranks, got 4"):
        model.Layout(6, 4)
    for wrong in ({"k": 65}, {"rows": 0}, {"format": "fp8"}, {"concentration": 0.0}, {"dense": -1}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            replace(job, **wrong)
    assert {layout.group for layout in model.plan(replace(job, experts=6, k=2), 12, h100)} == {1, 2, 3, 6}
    path = tmp_path / "machine.json"
    machines.write_machine(h100, path)
    assert machines.read_machine(path) == h100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--machine", "h1000"], "needs one of h100, a100, cpu, or a file that can be read"),
        (["--machine", "{folder}/machine.json"], "between: Field required"),
        (["--machine", "{folder}/empty.json"], "products.bf16: List should have at least 1 item"),
        (["--machine", "cpu", "--format", "bf16"], "needs a format that the machine has rates for: fp32"),
        (["--efficiency", "0"], "needs a share of the peak"),
        (["--ranks", "0"], "ranks: needs a whole number of at least 1, got 0"),
        (["--experts", "4"], "k: is at most the number of experts, 4, got 8"),
    ],
)
def test_the_command_line_refuses_with_one_error(machines, h100, tmp_path, capsys, arguments, message):
    import scale

    values = h100.model_dump()
    (tmp_path / "empty.json").write_text(json.dumps({**values, "products": {"bf16": []}}))
    del values["between"]
    (tmp_path / "machine.json").write_text(json.dumps(values))
    assert scale.main([text.format(folder=tmp_path) for text in arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("fix: ") == 1
    assert "Traceback" not in errors


def test_the_best_layout_is_the_fastest_that_fits(tmp_path, capsys):
    import scale

    options = ["--experts", "256", "--rows-per-rank", "8192", "--json", str(tmp_path / "plan.json")]
    assert scale.main([*options, "--ranks", "8", "64"]) == 0
    table = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| 256")]
    rows = json.loads((tmp_path / "plan.json").read_text())
    assert {row["fits"] for row in rows} == {True, False}
    for line, ranks in zip(table, (8, 64), strict=True):
        fitting = [row for row in rows if row["ranks"] == ranks and row["fits"]]
        best = min(fitting, key=lambda row: row["ms"])["layout"] if fitting else "none fits"
        assert line[-2].strip() == best
