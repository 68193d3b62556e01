"""`mb.layers.SparseFFN` beside other people's sparse layers on the same machine.

    python benchmarks/peers.py                              # E = 8 and 64, fp32 and bf16
    python benchmarks/peers.py --experts 8 --dtype bf16 --peer davidmrau

Each peer stands beside ours with the same activation, widths and biases, in the same format, for the same rows: the
two are called in turn, in one process, and the ratio is taken within rounds. Gated activations get a hidden width of
1368 where plain ones have 2048: as many weights. Ours never drops a row; the notes say where a peer does, or computes
in another format. A peer whose backward leaves a parameter without gradient is not counted. A peer that is not
installed is named with what installs it. The allocator is tuned for the whole process, peers included; `--untuned`
leaves it as it comes.
"""

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from _compare import Row, header, parser, write
from torch import Tensor, nn
from torch.nn import functional as F

import moebius as mb
from moebius.lab.bench.dense import forward, step
from moebius.lab.bench.problem import DTYPES
from moebius.lab.bench.timing import alone, beside, in_turn, seconds


@dataclass(frozen=True)
class Shape:
    """Width, width inside a plain expert, experts, experts per row, and rows."""

    dim: int
    hidden: int
    experts: int
    k: int
    rows: int

    @property
    def gated(self) -> int:
        """The hidden width with which three matrices have as many weights as two: rounded up to a multiple of 8."""
        return -(-self.hidden * 2 // 24) * 8


@dataclass(frozen=True)
class Peer:
    """Somebody's layer.

    Arguments:
        make: the layer of a shape, (1, T, D) → (1, T, D).
        like: what ours has to be to do the same work: activation, hidden width, biases.
        note: how it differs from ours in what it computes.
        install: what to type where it is missing.
        dtypes: formats in which it is measured.
    """

    make: Callable[[Shape], nn.Module]
    like: Callable[[Shape], dict[str, Any]]
    note: str = ""
    install: str = ""
    dtypes: tuple[str, ...] = ("fp32", "bf16")


class First(nn.Module):
    """A layer that gives losses beside its output, of which only the output is taken."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Dispatched(nn.Module):
    """Shazeer et al. 2017 as its text says: dispatch rows to a list of experts, run each, combine their outputs."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.k = shape.k
        self.gate = nn.Linear(shape.dim, shape.experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(shape.dim, shape.hidden), nn.GELU(), nn.Linear(shape.hidden, shape.dim))
            for _ in range(shape.experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        scores = self.gate(rows)
        best = scores.topk(self.k, -1)
        gates = torch.zeros_like(scores).scatter(1, best.indices, best.values.softmax(-1))
        expert_A, row_A = torch.nonzero(gates.t(), as_tuple=True)
        parts = rows[row_A].split((gates > 0).sum(0).tolist())
        outputs = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True)])
        weighted = outputs * gates[row_A, expert_A].unsqueeze(1)
        return torch.zeros_like(rows).index_add(0, row_A, weighted).view_as(x)


class Grouped(nn.Module):
    """Sort, copy the rows, one `grouped_mm` for each layer of all experts, and a weighted scatter back."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.k, self.experts = shape.k, shape.experts
        self.gate = nn.Linear(shape.dim, shape.experts, bias=False)
        self.inner = nn.Parameter(shape.dim**-0.5 * torch.randn(shape.experts, shape.dim, shape.hidden))
        self.outer = nn.Parameter(shape.hidden**-0.5 * torch.randn(shape.experts, shape.hidden, shape.dim))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        best = self.gate(rows).topk(self.k, -1)
        expert_A, order_A = best.indices.flatten().sort(stable=True)
        ends = torch.bincount(expert_A, minlength=self.experts).cumsum(0).int()
        row_A = order_A // self.k
        hidden = F.gelu(F.grouped_mm(rows[row_A], self.inner, offs=ends))
        outputs = F.grouped_mm(hidden, self.outer, offs=ends) * best.values.softmax(-1).flatten()[order_A, None]
        return torch.zeros_like(rows).index_add(0, row_A, outputs).view_as(x)


def drawn(layer: nn.Module) -> nn.Module:
    """The layer with its parameters drawn: some come as memory that nobody has written."""
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.02)
    return layer


def transformers(name: str, way: str) -> Callable[[Shape], nn.Module]:
    def make(shape: Shape) -> nn.Module:
        sizes = {"hidden_size": shape.dim, "intermediate_size": shape.gated, "num_experts_per_tok": shape.k}
        if name == "Mixtral":
            from transformers.models.mixtral.modeling_mixtral import MixtralConfig, MixtralSparseMoeBlock

            config, block = MixtralConfig(**sizes, num_local_experts=shape.experts), MixtralSparseMoeBlock
        else:
            from transformers.models.olmoe.modeling_olmoe import OlmoeConfig, OlmoeSparseMoeBlock

            config, block = OlmoeConfig(**sizes, num_experts=shape.experts), OlmoeSparseMoeBlock
        config._experts_implementation = way
        return drawn(block(config))

    return make


def lucidrains(shape: Shape) -> nn.Module:
    from mixture_of_experts import MoE

    sizes = {"dim": shape.dim, "num_experts": shape.experts, "hidden_dim": shape.hidden}
    # All second experts, as ours; the capacity as it comes.
    return First(MoE(**sizes, activation=nn.GELU, second_policy_train="all", second_policy_eval="all"))


def st_moe(shape: Shape) -> nn.Module:
    from st_moe_pytorch import MoE

    multiple = 1.5 * (shape.gated + 0.5) / shape.dim
    sizes = {"dim": shape.dim, "num_experts": shape.experts, "gating_top_n": shape.k, "expert_hidden_mult": multiple}
    # A threshold of 0 sends every row to its second expert too.
    return First(MoE(**sizes, threshold_train=0.0, threshold_eval=0.0))


def torchtitan(shape: Shape) -> nn.Module:
    from torchtitan.models.common.linear import Linear
    from torchtitan.models.common.moe import GroupedExperts, MoE, RoutedExperts, TokenChoiceTopKRouter
    from torchtitan.models.common.token_dispatcher import LocalTokenDispatcher

    experts = GroupedExperts.Config(dim=shape.dim, hidden_dim=shape.gated, num_experts=shape.experts)
    dispatcher = LocalTokenDispatcher.Config(num_experts=shape.experts, top_k=shape.k)
    gate = Linear.Config(in_features=shape.dim, out_features=shape.experts, bias=False)
    router = TokenChoiceTopKRouter.Config(
        num_experts=shape.experts, gate=gate, top_k=shape.k, score_func="softmax", route_norm=True
    )
    routed = RoutedExperts.Config(inner_experts=experts, token_dispatcher=dispatcher)
    made = MoE.Config(num_experts=shape.experts, routed_experts=routed, router=router, load_balance_coeff=None)
    return drawn(made.build())


def tutel(shape: Shape) -> nn.Module:
    from tutel import moe

    experts = {"type": "ffn", "count_per_node": shape.experts, "hidden_size_per_expert": shape.hidden}
    experts["activation_fn"] = F.gelu
    # A capacity factor of 0: as much as the busiest expert needs.
    gate = {"type": "top", "k": shape.k, "capacity_factor": 0.0}
    return moe.moe_layer(gate_type=gate, experts=experts, model_dim=shape.dim)


def plain(bias: bool) -> Callable[[Shape], dict[str, Any]]:
    return lambda shape: {"activation": "gelu", "hidden": shape.hidden, "bias": bias}


def gated(activation: str, bias: bool) -> Callable[[Shape], dict[str, Any]]:
    return lambda shape: {"activation": activation, "hidden": shape.gated, "bias": bias}


SWIGLU = gated("swiglu", False)
CAPACITY = "drops rows beyond 1.25 (forward: 2) T/E an expert, and pads to it"
PEERS = {
    "Mixtral eager": Peer(transformers("Mixtral", "eager"), SWIGLU, "", "transformers"),
    "Mixtral grouped_mm": Peer(transformers("Mixtral", "grouped_mm"), SWIGLU, "", "transformers"),
    "OLMoE eager": Peer(transformers("OLMoE", "eager"), SWIGLU, "softmax before the choice", "transformers"),
    "OLMoE grouped_mm": Peer(transformers("OLMoE", "grouped_mm"), SWIGLU, "softmax before the choice", "transformers"),
    "lucidrains": Peer(lucidrains, plain(False), f"{CAPACITY}; k is 2", "mixture-of-experts"),
    "st-moe": Peer(st_moe, gated("geglu", True), CAPACITY, "st-moe-pytorch"),
    "davidmrau": Peer(Dispatched, plain(True), "its idea in our words"),
    "torchtitan": Peer(torchtitan, SWIGLU, "products in bf16 always", "torchtitan", ("bf16",)),
    "Tutel": Peer(tutel, plain(True), "no drops; pads to the busiest", "git+https://github.com/microsoft/tutel"),
    "plain grouped_mm": Peer(Grouped, plain(False), "in our words", "", ("bf16",)),
}


def without_gradient(layer: nn.Module, x: Tensor) -> list[str]:
    """Names of the parameters that one step leaves without gradient, or with one that is all zero or not finite."""
    step(layer, x)()
    gradients = {name: parameter.grad for name, parameter in layer.named_parameters()}
    layer.zero_grad(set_to_none=True)
    return [
        name for name, one in gradients.items() if one is None or not bool(one.isfinite().all()) or not bool(one.any())
    ]


def measure(name: str, peer: Peer, shape: Shape, dtype: str, rounds: int) -> list[Row]:
    """One peer beside ours; nothing where it cannot be measured, which is printed."""
    torch.manual_seed(0)
    x = torch.randn(1, shape.rows, shape.dim).to(DTYPES[dtype])
    label = f"E={shape.experts} {dtype} {name}"
    try:
        theirs = peer.make(shape).to(DTYPES[dtype])
        lacking = without_gradient(theirs, x)
    except ImportError as error:
        print(f"{label:<32} not installed: pip install {peer.install} ({error})")
        return []
    except Exception as error:  # whatever somebody else's code raises
        print(f"{label:<32} does not run here: {type(error).__name__}: {str(error).strip().splitlines()[:1]}")
        return []
    if lacking:
        print(f"{label:<32} not counted: no gradient for {', '.join(lacking[:3])} and so on, {len(lacking)} in all")
        return []
    like = peer.like(shape)
    sizes = {"dim": shape.dim, "experts": shape.experts, "k": shape.k}
    ours = mb.layers.SparseFFN(**sizes, **like).to(DTYPES[dtype])
    found: list[Row] = []
    for mode, candidate in (("forward", forward), ("forward+backward", step)):
        layers = {"theirs": theirs.train(mode != "forward"), "ours": ours.train(mode != "forward")}
        times = seconds(in_turn({who: candidate(layer, x) for who, layer in layers.items()}, rounds))
        of = {who: [1e3 * second for second in each] for who, each in times.items()}
        title = f"{label}, {mode}"
        found += [alone(f"{title}, ours", of["ours"], "ms"), alone(title, of["theirs"], "ms")]
        found.append(beside(title, of["theirs"], f"{title}, ours", of["ours"], "ms"))
    for mode, (own, their, both) in zip(("forward", "forward+backward"), (found[:3], found[3:]), strict=True):
        low, high = both.spread
        print(
            f"{label:<32} {mode:<17} {their.value:9.1f} ms   ours {own.value:8.1f} ms   "
            f"theirs / ours {both.ratio:6.2f} ({low:.2f} … {high:.2f})"
        )
    work = ", ".join(f"{key} {value}" for key, value in like.items())
    print(f"{'':<32} both: {work}{'; theirs: ' if peer.note else ''}{peer.note}")
    return found


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--experts", type=int, action="append", help="default: 8 and 64")
    arguments.add_argument("--dtype", choices=DTYPES, action="append", help="default: both")
    arguments.add_argument("--peer", choices=PEERS, action="append", help="only this one; can be given again")
    arguments.add_argument("--rounds", type=int, default=7, help="counted rounds")
    arguments.add_argument("--rows", type=int, default=4096)
    arguments.add_argument("--dim", type=int, default=512)
    arguments.add_argument("--hidden", type=int, default=2048, help="of plain experts; of gated ones two thirds")
    arguments.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of PyTorch")
    arguments.add_argument("--untuned", action="store_true", help="leave the allocator as it comes")
    options = arguments.parse_args()
    header(options.threads, options.untuned)
    print(f"rows {options.rows}, dim {options.dim}, hidden {options.hidden}, k 2; median over {options.rounds} rounds")
    found = []
    for experts in options.experts or (8, 64):
        shape = Shape(options.dim, options.hidden, experts, 2, options.rows)
        for dtype in options.dtype or DTYPES:
            for name in options.peer or PEERS:
                if dtype in PEERS[name].dtypes:
                    found += measure(name, PEERS[name], shape, dtype, options.rounds)
                    gc.collect()
    write(found, options.json)


if __name__ == "__main__":
    main()
