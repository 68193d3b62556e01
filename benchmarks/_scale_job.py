"""The job that is sized, and the layouts of ranks that can run it.

Symbols: n ranks, of which g share the experts ("group"); n / g ranks hold the same experts ("copies"). A rank is a
process with a GPU, or with a share of the cores.
"""

from dataclasses import dataclass
from math import ceil

from moebius.kit.errors import ArgumentError

# Bytes of a number that travels, and is multiplied; weights, gradients and moments have 4 in both formats.
FORMATS = {"fp32": 4, "bf16": 2}
# The kinds of layouts, by whether ranks share experts and whether FSDP2 shards.
KINDS = {(False, False): "DDP", (False, True): "FSDP2", (True, False): "EP, × DDP", (True, True): "EP, × FSDP2"}


@dataclass(frozen=True)
class Job:
    """A model and its batch.

    Arguments:
        experts: E, in each layer.
        dim: D, width of a row.
        hidden: width inside an expert.
        layers: number of layers.
        k: experts of a row.
        rows: rows of each rank in a step.
        gated: whether experts have three matrices (swiglu), not two.
        dense: parameters of a layer outside of experts and gate, each used once by a row; None = 4 · D².
        format: "fp32", or "bf16": rows and products in it, weights and moments in fp32.
        recompute: whether backward repeats the forward of each layer (activation checkpointing).
        concentration: c of a symmetric Dirichlet distribution that the shares of the experts come from; None = the
            router loads all alike, and only chance makes ranks unequal.
    """

    experts: int
    dim: int
    hidden: int
    layers: int
    k: int
    rows: int
    gated: bool = False
    dense: int | None = None
    format: str = "bf16"
    recompute: bool = False
    concentration: float | None = None

    def __post_init__(self):
        for name in ("experts", "dim", "hidden", "layers", "k", "rows"):
            value = getattr(self, name)
            if value < 1:
                raise ArgumentError(name, "needs a whole number of at least 1", value, f"{name}=8")
        if self.k > self.experts:
            raise ArgumentError("k", f"is at most the number of experts, {self.experts}", self.k, "k=2")
        if self.dense is not None and self.dense < 0:
            raise ArgumentError("dense", "needs a number of parameters, at least 0", self.dense, "dense=0")
        if self.format not in FORMATS:
            raise ArgumentError("format", f"needs one of {', '.join(FORMATS)}", self.format, "format=bf16")
        if self.concentration is not None and not self.concentration > 0:
            raise ArgumentError("concentration", "needs a number above 0", self.concentration, "concentration=10")

    @property
    def width(self) -> int:
        """Bytes of a number in rows and products."""
        return FORMATS[self.format]

    @property
    def expert_parameters(self) -> int:
        """Parameters of an expert."""
        return (3 if self.gated else 2) * self.dim * self.hidden

    @property
    def layer_experts(self) -> int:
        """Parameters of a layer's experts."""
        return self.experts * self.expert_parameters

    @property
    def dense_parameters(self) -> int:
        """Parameters of a layer's dense part."""
        return 4 * self.dim**2 if self.dense is None else self.dense

    @property
    def layer_rest(self) -> int:
        """Parameters of a layer outside of its experts: the dense part and the gate."""
        return self.dense_parameters + self.experts * self.dim

    @property
    def parameters(self) -> int:
        """Parameters of the model."""
        return self.layers * (self.layer_experts + self.layer_rest)


@dataclass(frozen=True)
class Layout:
    """How ranks share a model.

    Arguments:
        ranks: n.
        group: g, how many ranks share the experts of a layer; 1 = every rank has, or gathers, all.
        sharded: whether FSDP2 shards what several ranks would hold alike; otherwise they hold copies, as DDP has it.
    """

    ranks: int
    group: int = 1
    sharded: bool = False

    def __post_init__(self):
        if self.ranks < 1:
            raise ArgumentError("ranks", "needs a whole number of at least 1", self.ranks, "ranks=8")
        if self.group < 1 or self.ranks % self.group:
            rule = f"needs a divisor of the {self.ranks} ranks"
            raise ArgumentError("group", rule, self.group, f"group={self.ranks}")

    @property
    def copies(self) -> int:
        """How many ranks hold, or shard, the same experts."""
        return self.ranks // self.group

    @property
    def name(self) -> str:
        """DDP, FSDP2, EP and their mixtures; with the size of the group where there are several."""
        if self.ranks == 1:
            return "one rank"
        if self.group == 1:
            return "FSDP2" if self.sharded else "DDP"
        if self.copies == 1:
            return "EP+FSDP2" if self.sharded else "EP"
        return f"EP {self.group} × {'FSDP2' if self.sharded else 'DDP'} {self.copies}"

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return KINDS[self.group > 1, self.sharded]

    def check_fits(self, job: Job) -> None:
        """Raise an ArgumentError unless each rank of a group holds as many experts."""
        if job.experts % self.group:
            rule = f"needs a number of experts that {self.group} ranks share evenly"
            raise ArgumentError("experts", rule, job.experts, f"experts={ceil(job.experts / self.group) * self.group}")
