"""Machines that jobs are sized for: a description in JSON, measured (`scale.py --measure`) or from data sheets."""

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moebius.kit.errors import ArgumentError
from moebius.kit.files import read_json, write_json

FOLDER = Path(__file__).parent


class Part(BaseModel):
    """A part of a description: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Link(Part):
    """What a collective is priced by.

    Arguments:
        kind: "all_reduce", "all_gather", "reduce_scatter", "all_to_all", or "any".
        ranks: how many ranks it was measured with; 0 = any.
        latency: seconds of a message.
        bandwidth: bytes a second that a rank sends.
    """

    kind: str = "any"
    ranks: int = 0
    latency: float = Field(ge=0)
    bandwidth: float = Field(gt=0)


class Rate(Part):
    """How fast products of an expert are.

    Arguments:
        parameters: of the expert.
        rows: of the expert.
        flops: FLOP a second, forward and backward.
    """

    parameters: int = Field(gt=0)
    rows: float = Field(gt=0)
    flops: float = Field(gt=0)


class Machine(Part):
    """Nodes of ranks, alike.

    Arguments:
        about: hardware, where the numbers come from, and when.
        ranks_per_node: ranks of a node.
        memory: bytes of a rank.
        products: rates for each number format.
        bandwidth: bytes a second of a rank's memory.
        call_seconds: seconds that the host takes to call a layer, forward and backward.
        overlap: a number from 0 to 1: reductions hide behind this share of the products' time.
        inside: links of the ranks of a node.
        between: the link from a rank to ranks of other nodes.
        slowdowns: how much longer work takes while so many ranks of a node work, by their number; empty = no longer.
    """

    about: str
    ranks_per_node: int = Field(gt=0)
    memory: float = Field(gt=0)
    products: dict[str, Annotated[list[Rate], Field(min_length=1)]] = Field(min_length=1)
    bandwidth: float = Field(gt=0)
    call_seconds: float = Field(ge=0)
    overlap: float = Field(ge=0, le=1)
    inside: list[Link] = Field(min_length=1)
    between: Link
    slowdowns: dict[int, float] = {}

    def rate(self, format: str, parameters: int, rows: float) -> float:
        """FLOP a second of an expert's products: between measured sizes and rows on straight lines of logarithms."""
        if format not in self.products:
            rule = f"needs a format that the machine has rates for: {', '.join(self.products)}"
            raise ArgumentError("format", rule, format, f"--format {next(iter(self.products))}")
        sizes = sorted({rate.parameters for rate in self.products[format]})
        by_size = []
        for size in sizes:
            rates = sorted((rate for rate in self.products[format] if rate.parameters == size), key=lambda r: r.rows)
            logarithms = [np.log([getattr(rate, name) for rate in rates]) for name in ("rows", "flops")]
            by_size.append(np.interp(np.log(rows), *logarithms))
        return float(np.exp(np.interp(np.log(parameters), np.log(sizes), by_size)))

    def link_inside(self, kind: str, ranks: int) -> Link:
        """The link for a collective among so many ranks of a node: measured with the nearest number of ranks."""
        links = [link for link in self.inside if link.kind in (kind, "any")]
        if not links:
            raise ArgumentError(
                "inside", f"needs a link for {kind}", [link.kind for link in self.inside], 'kind: "any"'
            )
        return min(links, key=lambda link: abs(link.ranks - ranks))

    def slowdown(self, ranks: int) -> float:
        """How much longer work takes while all ranks of a node, or all there are, work."""
        busy = min(ranks, self.ranks_per_node)
        return float(np.interp(busy, *zip(*sorted(self.slowdowns.items()), strict=True))) if self.slowdowns else 1.0


def gpu(
    about: str, peaks: dict[str, float], memory: float, bandwidth: float, inside: float, between: float, share: float
) -> Machine:
    """Nodes of 8 GPUs by their data sheet, with assumptions.

    The rate of products is the smaller of a share of the peak and what the memory allows: forward and backward read the
    weights of an expert and write their gradients.

    Arguments:
        about: its name and sources.
        peaks: FLOP a second for each number format.
        memory: bytes.
        bandwidth: bytes a second of the memory.
        inside, between: bytes a second of a GPU's links, in each direction.
        share: of the peaks that is reached.
    """
    products = {}
    for format, peak in peaks.items():
        width = 2 if format == "bf16" else 4
        # 6 FLOP a row and parameter; weights read twice, gradients written in fp32.
        per_row = 6 / (2 * width + 4) * 0.8 * bandwidth
        knee = share * peak / per_row
        products[format] = [
            Rate(parameters=1, rows=rows, flops=min(share * peak, rows * per_row)) for rows in (1e-3, knee, 1e6)
        ]
    return Machine(
        about=about,
        ranks_per_node=8,
        memory=memory,
        products=products,
        bandwidth=0.8 * bandwidth,
        call_seconds=2e-4,
        overlap=0.8,
        inside=[Link(latency=3e-6, bandwidth=0.8 * inside)],
        between=Link(latency=6e-6, bandwidth=0.8 * between),
    )


def builtin(name: str, share: float) -> Machine:
    """A built-in machine; `share` of the peak is for GPUs."""
    if name == "cpu":
        return read_machine(FOLDER / "scale-cpu.json")
    assumed = f"by data sheets; {share:.0%} of the peak assumed"
    if name == "h100":
        about = f"8 × H100 SXM 80 GB, NVLink 450 GB/s, between nodes 400 Gb/s a GPU, {assumed}"
        return gpu(about, {"bf16": 989e12, "fp32": 494e12}, 80e9, 3.35e12, 450e9, 50e9, share)
    about = f"8 × A100 SXM 80 GB, NVLink 300 GB/s, between nodes 200 Gb/s a GPU, {assumed}"
    return gpu(about, {"bf16": 312e12, "fp32": 156e12}, 80e9, 2.039e12, 300e9, 25e9, share)


BUILTIN = ("h100", "a100", "cpu")


def find_machine(name: str, share: float = 0.4) -> Machine:
    """The built-in machine of this name, or that of a file.

    Raises:
        ArgumentError: there is no such file, or it does not describe a machine.
    """
    if not 0 < share <= 1:
        raise ArgumentError(
            "--efficiency", "needs a share of the peak, above 0 and at most 1", share, "--efficiency 0.4"
        )
    return builtin(name, share) if name in BUILTIN else read_machine(Path(name))


def read_machine(path: Path) -> Machine:
    """The machine of a JSON file."""
    try:
        return Machine.model_validate(read_json(path))
    except OSError as error:
        rule = f"needs one of {', '.join(BUILTIN)}, or a file that can be read ({error.strerror})"
        raise ArgumentError("--machine", rule, str(path), "--machine h100") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        fix = "a file like benchmarks/scale-cpu.json, which scale.py --measure writes"
        raise ArgumentError(f"{path}: {place}", first["msg"], first["input"], fix) from None


def merge_measurements(first: Machine, second: Machine) -> Machine:
    """The faster of two measurements of one machine, number by number: other work only makes it slower.

    Arguments:
        first: with what was assumed, such as links to other machines.
        second: measured by the same sizes; its description counts.
    """
    rates = {
        format: [max(pair, key=lambda rate: rate.flops) for pair in zip(rates, second.products[format], strict=True)]
        for format, rates in first.products.items()
    }
    links = [
        link.model_copy(
            update={"latency": min(link.latency, again.latency), "bandwidth": max(link.bandwidth, again.bandwidth)}
        )
        for link, again in zip(first.inside, second.inside, strict=True)
    ]
    faster = {
        "about": second.about,
        "products": rates,
        "bandwidth": max(first.bandwidth, second.bandwidth),
        "call_seconds": min(first.call_seconds, second.call_seconds),
        "inside": links,
        "slowdowns": {ranks: max(1.0, min(time, second.slowdowns[ranks])) for ranks, time in first.slowdowns.items()},
    }
    return first.model_copy(update=faster)


def write_machine(machine: Machine, path: Path) -> None:
    """Write a machine as JSON."""
    write_json(path, machine.model_dump())
