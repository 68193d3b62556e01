"""What a training step of a job costs on a machine, by rank: time, bytes and memory. `cost` is the model.

Units: seconds, bytes, FLOP (a multiply-add is two), rows. Symbols as in `_scale_job.py`.

What a layer is: x + ffn(W x), W a dense part that every rank holds or FSDP2 shards (attention's projections, say), ffn
an `mb.layers.SparseFFN` without shared experts. No parameters have biases.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil, log2

import numpy as np
from _scale_job import Job, Layout
from _scale_machine import Machine

# Adam reads weight, gradient and two moments, and writes weight and moments.
ADAM_BYTES = 28
# DDP reduces gradients in pieces of this size.
BUCKET = 25 * 2**20
# Of a rank's memory, what allocator, libraries and workspaces leave.
USABLE = 0.9


@dataclass(frozen=True)
class Memory:
    """Bytes that a rank holds, at the largest.

    Arguments:
        weights, gradients, moments: of the parameters, or shards of them, that the optimizer steps.
        activations: what backward needs of all rows.
        buffers: whole layers that FSDP2 has gathered, joined gradients, rows on their way, copies in bf16.
    """

    weights: int
    gradients: int
    moments: int
    activations: int
    buffers: int

    @property
    def states(self) -> int:
        """Weights, gradients and moments."""
        return self.weights + self.gradients + self.moments

    @property
    def total(self) -> int:
        """All of it."""
        return self.states + self.activations + self.buffers


@dataclass(frozen=True)
class Cost:
    """A training step.

    Arguments:
        products: seconds of the dense products, and of what goes with them (activation, order of rows).
        exchange: seconds of the all-to-alls of rows.
        reduction: seconds of all-reduces, or of FSDP2's gathers and reduce-scatters, beyond what products hide.
        optimizer: seconds of Adam.
        calls: seconds that the host takes to call the layers.
        exchanged: bytes of rows that a rank sends to others.
        reduced: bytes that a rank sends for reduction and gathering.
        load: rows of the busiest rank, relative to the mean.
        memory: bytes of the busiest rank.
    """

    products: float
    exchange: float
    reduction: float
    optimizer: float
    calls: float
    exchanged: float
    reduced: float
    load: float
    memory: Memory

    @cached_property
    def seconds(self) -> float:
        """Of the step."""
        return self.products + self.exchange + self.reduction + self.optimizer + self.calls


@lru_cache(maxsize=4096)
def busiest_load(job: Job, layout: Layout, draws: int = 8, seed: int = 0) -> float:
    """The rows that arrive at the busiest rank, relative to the mean: expected over random draws.

    Each of the rows · g · k assignments of a group goes to a rank by the rank's share. The shares of ranks are sums
    over their experts; of a Dirichlet distribution with c for each expert they have one with c · E / g.

    The step ends with the slowest of all groups, so a draw is the maximum over n / g of them.
    """
    if layout.group == 1:
        return 1.0
    random = np.random.default_rng([seed, job.experts, layout.group, layout.copies])
    shares = np.full(layout.group, 1 / layout.group)
    assignments, maxima = job.rows * layout.group * job.k, []
    for _ in range(draws):
        if job.concentration is not None:
            shares = random.dirichlet(np.full(layout.group, job.concentration * job.experts / layout.group))
        maxima.append(random.multinomial(assignments, shares, layout.copies).max() / (job.rows * job.k))
    return float(np.mean(maxima))


def sent_bytes(kind: str, size: float, members: int) -> float:
    """Bytes that a rank sends in a collective.

    Arguments:
        kind: "all_reduce" (a ring), "all_gather", "reduce_scatter" or "all_to_all".
        size: bytes of the whole tensor; of an all-to-all those of one rank's rows, with those for itself.
        members: ranks.
    """
    return (2 if kind == "all_reduce" else 1) * size * (members - 1) / members


def collective_seconds(machine: Machine, kind: str, size: float, members: int, inside: int, pieces: int = 1) -> float:
    """Seconds of a collective by latency and bandwidth: rings in each node, then trees between nodes.

    A ring sends members − 1 messages one after another, a tree between N nodes ⌈log2 N⌉, an all-reduce twice as many;
    an all-to-all sends one to each member.

    Arguments:
        machine: with its links.
        kind: as in `sent_bytes`.
        size: as in `sent_bytes`.
        members: ranks.
        inside: how many of them are on a node.
        pieces: so many collectives for the size together.
    """
    inside = max(1, min(inside, members))
    near, seconds = machine.link_inside(kind, inside), 0.0
    trips = 2 if kind == "all_reduce" else 1
    seconds += trips * (inside - 1) * near.latency * pieces
    if kind == "all_to_all":
        seconds += size * (inside - 1) / members / near.bandwidth
        far_messages, far_bytes = members - inside, size * (members - inside) / members
    else:
        nodes = ceil(members / inside)
        seconds += sent_bytes(kind, size, inside) / near.bandwidth
        far_messages, far_bytes = trips * ceil(log2(nodes)), sent_bytes(kind, size / inside, nodes)
    if far_messages:
        seconds += far_messages * machine.between.latency * pieces + far_bytes / machine.between.bandwidth
    return seconds


def _product_seconds(job: Job, layout: Layout, machine: Machine, load: float) -> float:
    """Of all layers, forward and backward: 3 times the FLOP of forward, 4 with recomputation."""
    passes = 4 if job.recompute else 3
    local = job.experts // layout.group
    per_expert = job.rows * job.k * load / local
    expert_flops = 2 * passes * job.rows * job.k * load * job.expert_parameters
    seconds = expert_flops / machine.rate(job.format, job.expert_parameters, per_expert)
    dense_flops = 2 * passes * job.rows * job.layer_rest
    if dense_flops:
        seconds += dense_flops / machine.rate(job.format, job.layer_rest, job.rows)
    return job.layers * seconds


def _exchange(job: Job, layout: Layout, machine: Machine, load: float) -> tuple[float, float]:
    """Seconds and sent bytes of the exchange: rows and outputs, forward and backward, and numbers of rows before."""
    if layout.group == 1:
        return 0.0, 0.0
    inside, size = min(layout.group, machine.ranks_per_node), job.rows * job.k * job.dim * job.width
    forwards = 2 if job.recompute else 1
    trips = 2 * forwards + 2

    def seconds(size: float) -> float:
        return collective_seconds(machine, "all_to_all", size, layout.group, inside)

    # A trip reads and writes rows once more on either side, to order them.
    copies = 2 * 2 * size * load / machine.bandwidth * machine.slowdown(layout.ranks)
    numbers = forwards * seconds(8 * job.experts)
    total = job.layers * (trips * (seconds(size * load) + copies) + numbers)
    return total, job.layers * trips * sent_bytes("all_to_all", size, layout.group)


def _reduction(job: Job, layout: Layout, machine: Machine) -> tuple[float, float]:
    """Seconds and sent bytes of reducing gradients, and of gathering what is sharded."""
    experts, rest = job.layer_experts // layout.group, job.layer_rest
    # Parameters and how many ranks hold them alike, and how many of these are on a node.
    parts = [(rest, layout.ranks, machine.ranks_per_node)]
    if layout.group == 1:
        parts = [(rest + experts, layout.ranks, machine.ranks_per_node)]
    elif layout.copies > 1:
        parts.append((experts, layout.copies, machine.ranks_per_node // layout.group))
    seconds = moved = 0.0
    for parameters, members, inside in parts:
        if members == 1 or not parameters:
            continue
        if layout.sharded:
            calls = [("all_gather", job.width), ("all_gather", job.width), ("reduce_scatter", 4)]
            times, pieces = job.layers, 1
        else:
            calls, times = [("all_reduce", 4 * job.layers)], 1
            pieces = ceil(4 * job.layers * parameters / BUCKET) if layout.group == 1 else 1
        for kind, width in calls:
            size = width * parameters
            seconds += times * collective_seconds(machine, kind, size, members, inside, pieces)
            moved += times * sent_bytes(kind, size, members)
            # Tensors are joined before, and parted after: each is read and written.
            copies = 1 if layout.sharded else 2
            seconds += times * copies * 2 * size / machine.bandwidth * machine.slowdown(layout.ranks)
    return seconds, moved


def _memory(job: Job, layout: Layout, load: float) -> Memory:
    """Bytes of the busiest rank."""
    experts, rest = job.layer_experts // layout.group, job.layer_rest
    local = job.layers * (ceil(experts / layout.copies) + ceil(rest / layout.ranks))
    if not layout.sharded:
        local = job.layers * (experts + rest)
    row_k, inner = job.rows * job.k * load, (2 if job.gated else 1) * job.hidden
    # Of an assignment: the hidden layer before its activation, and the output; where rows travel, the row that came.
    layer = row_k * (inner + job.dim * (1 if layout.group == 1 else 2))
    # Of a row: inputs of the dense part, a D × D product each, and of the experts.
    layer += job.rows * (job.dense_parameters // job.dim + job.dim)
    activations = layer + job.layers * job.rows * job.dim if job.recompute else job.layers * layer
    buffers = 0.0
    if layout.group > 1:
        buffers += 2 * row_k * job.dim * job.width
    if layout.sharded:
        gathered = rest * (layout.ranks > 1) + experts * (layout.copies > 1)
        # Two layers are whole at once: one that runs and one that is gathered ahead; one has whole gradients.
        buffers += gathered * (2 * job.width + 4)
    elif layout.ranks > 1:
        buffers += 4 * job.layers * (rest + experts * (layout.copies > 1))
    if job.width < 4 and not layout.sharded:
        buffers += job.width * local
    return Memory(4 * local, 4 * local, 8 * local, int(activations * job.width), int(buffers))


def cost(job: Job, layout: Layout, machine: Machine) -> Cost:
    """A training step of the job on the busiest rank.

    Raises:
        ArgumentError: the experts cannot be shared evenly, or the machine has no rates for the format.
    """
    layout.check_fits(job)
    load, slowdown = busiest_load(job, layout), machine.slowdown(layout.ranks)
    products = _product_seconds(job, layout, machine, load) * slowdown
    exchange, exchanged = _exchange(job, layout, machine, load)
    reduction, reduced = _reduction(job, layout, machine)
    memory = _memory(job, layout, load)
    return Cost(
        products=products,
        exchange=exchange,
        reduction=max(0.0, reduction - machine.overlap * products),
        optimizer=memory.weights // 4 * ADAM_BYTES / machine.bandwidth * slowdown,
        calls=job.layers * machine.call_seconds * slowdown * (4 / 3 if job.recompute else 1),
        exchanged=exchanged,
        reduced=reduced,
        load=load,
        memory=memory,
    )


def plan(job: Job, ranks: int, machine: Machine) -> dict[Layout, Cost]:
    """The cost of every layout of so many ranks that shares the job's experts evenly."""
    alone = Layout(ranks)
    groups = [group for group in range(1, ranks + 1) if ranks % group == 0 and job.experts % group == 0]
    layouts = [Layout(ranks, group, sharded) for group in groups for sharded in (False, True)] if ranks > 1 else [alone]
    return {layout: cost(job, layout, machine) for layout in layouts}


def fits(memory: Memory, machine: Machine) -> bool:
    """Whether a rank's memory has room for it."""
    return memory.total <= USABLE * machine.memory


def best(costs: dict[Layout, Cost], machine: Machine, choose: Callable[[Layout], bool] = lambda _: True):
    """The fastest layout that fits; where none does, the one with the least memory; None where there is none."""
    pairs = [(layout, cost) for layout, cost in costs.items() if choose(layout)]
    fitting = [pair for pair in pairs if fits(pair[1].memory, machine)]
    if fitting:
        return min(fitting, key=lambda pair: pair[1].seconds)[0]
    return min(pairs, key=lambda pair: pair[1].memory.total)[0] if pairs else None
