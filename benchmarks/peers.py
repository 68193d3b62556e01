"""`mb.layers.SparseFFN` compared with the sparse layers of other libraries on the same machine.

    python benchmarks/peers.py                              # E = 8 and 64, fp32 and bf16
    python benchmarks/peers.py --experts 8 --dtype bf16 --peer davidmrau

Each peer is compared with a layer of ours that has the same activation, widths and biases, in the same format and for
the same rows: the two run in turn in one process, and the ratio is taken within rounds. Gated activations get a hidden
width of 1368 where plain ones have 2048, which gives as many weights. Our layer never drops a row; notes name the peers
that do, or that compute in another format. Every round has new rows, as every step of a training has: an expert's
number of rows changes, and with it the shapes of its products. `--same-rows` measures the same rows again and again. A
peer whose backward leaves a parameter without gradient is not measured.
For a peer that is not installed, the benchmark prints the command that installs it. The allocator is tuned for the
whole process, peers included; `--untuned` does not tune it.
"""

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from _compare import Measurement, make_parser, prepare_process, write_rows
from _peer_layers import Dispatched, Grouped, OutputOnly, Shape
from torch import Tensor, nn
from torch.nn import functional as F

import moebius as mb
from moebius.lab.bench.dense import forward_call, step_call
from moebius.lab.bench.timing import durations, ratio_row, time_in_turn, value_row
from moebius.lab.bench.workload import DTYPES


@dataclass(frozen=True)
class Peer:
    """A layer of another library.

    Arguments:
        make: makes the layer of a shape, (1, T, D) → (1, T, D).
        options: options with which our layer does the same work: activation, hidden width, biases.
        note: how its computation differs from ours.
        install: the package to install.
        dtypes: formats in which it is measured.
    """

    make: Callable[[Shape], nn.Module]
    options: Callable[[Shape], dict[str, Any]]
    note: str = ""
    install: str = ""
    dtypes: tuple[str, ...] = ("fp32", "bf16")


def draw_parameters(layer: nn.Module) -> nn.Module:
    """Draw all parameters of a layer, and return it: some layers leave them as uninitialised memory."""
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.02)
    return layer


def make_transformers(name: str, implementation: str) -> Callable[[Shape], nn.Module]:
    def make(shape: Shape) -> nn.Module:
        sizes = {"hidden_size": shape.dim, "intermediate_size": shape.gated_hidden, "num_experts_per_tok": shape.k}
        if name == "Mixtral":
            from transformers.models.mixtral.modeling_mixtral import MixtralConfig, MixtralSparseMoeBlock

            config, block = MixtralConfig(**sizes, num_local_experts=shape.experts), MixtralSparseMoeBlock
        else:
            from transformers.models.olmoe.modeling_olmoe import OlmoeConfig, OlmoeSparseMoeBlock

            config, block = OlmoeConfig(**sizes, num_experts=shape.experts), OlmoeSparseMoeBlock
        config._experts_implementation = implementation
        return draw_parameters(block(config))

    return make


def make_lucidrains(shape: Shape) -> nn.Module:
    from mixture_of_experts import MoE

    sizes = {"dim": shape.dim, "num_experts": shape.experts, "hidden_dim": shape.hidden}
    # Every row goes to its second expert, as in our layer; the capacity is the default.
    return OutputOnly(MoE(**sizes, activation=nn.GELU, second_policy_train="all", second_policy_eval="all"))


def make_st_moe(shape: Shape) -> nn.Module:
    from st_moe_pytorch import MoE

    multiple = 1.5 * (shape.gated_hidden + 0.5) / shape.dim
    sizes = {"dim": shape.dim, "num_experts": shape.experts, "gating_top_n": shape.k, "expert_hidden_mult": multiple}
    # With a threshold of 0, every row goes to its second expert.
    return OutputOnly(MoE(**sizes, threshold_train=0.0, threshold_eval=0.0))


def make_torchtitan(shape: Shape) -> nn.Module:
    from torchtitan.models.common.linear import Linear
    from torchtitan.models.common.moe import GroupedExperts, MoE, RoutedExperts, TokenChoiceTopKRouter
    from torchtitan.models.common.token_dispatcher import LocalTokenDispatcher

    experts = GroupedExperts.Config(dim=shape.dim, hidden_dim=shape.gated_hidden, num_experts=shape.experts)
    dispatcher = LocalTokenDispatcher.Config(num_experts=shape.experts, top_k=shape.k)
    gate = Linear.Config(in_features=shape.dim, out_features=shape.experts, bias=False)
    router = TokenChoiceTopKRouter.Config(
        num_experts=shape.experts, gate=gate, top_k=shape.k, score_func="softmax", route_norm=True
    )
    routed = RoutedExperts.Config(inner_experts=experts, token_dispatcher=dispatcher)
    config = MoE.Config(num_experts=shape.experts, routed_experts=routed, router=router, load_balance_coeff=None)
    return draw_parameters(config.build())


def make_tutel(shape: Shape) -> nn.Module:
    from tutel import moe

    experts = {"type": "ffn", "count_per_node": shape.experts, "hidden_size_per_expert": shape.hidden}
    experts["activation_fn"] = F.gelu
    # A capacity factor of 0 means the capacity that the busiest expert needs.
    gate = {"type": "top", "k": shape.k, "capacity_factor": 0.0}
    return moe.moe_layer(gate_type=gate, experts=experts, model_dim=shape.dim)


def plain_options(bias: bool) -> Callable[[Shape], dict[str, Any]]:
    return lambda shape: {"activation": "gelu", "hidden": shape.hidden, "bias": bias}


def gated_options(activation: str, bias: bool) -> Callable[[Shape], dict[str, Any]]:
    return lambda shape: {"activation": activation, "hidden": shape.gated_hidden, "bias": bias}


SWIGLU = gated_options("swiglu", False)
# Rounds before those that count.
UNCOUNTED = 2
CAPACITY = "drops rows beyond 1.25 (forward: 2) T/E an expert, and pads to it"
PEERS = {
    "Mixtral eager": Peer(make_transformers("Mixtral", "eager"), SWIGLU, "", "transformers"),
    "Mixtral grouped_mm": Peer(make_transformers("Mixtral", "grouped_mm"), SWIGLU, "", "transformers"),
    "OLMoE eager": Peer(make_transformers("OLMoE", "eager"), SWIGLU, "softmax before top k", "transformers"),
    "OLMoE grouped_mm": Peer(make_transformers("OLMoE", "grouped_mm"), SWIGLU, "softmax before top k", "transformers"),
    "lucidrains": Peer(make_lucidrains, plain_options(False), f"{CAPACITY}; k is 2", "mixture-of-experts"),
    "st-moe": Peer(make_st_moe, gated_options("geglu", True), CAPACITY, "st-moe-pytorch"),
    "davidmrau": Peer(Dispatched, plain_options(True), "its algorithm, in our code"),
    "torchtitan": Peer(make_torchtitan, SWIGLU, "products in bf16 always", "torchtitan", ("bf16",)),
    "Tutel": Peer(
        make_tutel, plain_options(True), "no drops; pads to the busiest", "git+https://github.com/microsoft/tutel"
    ),
    "plain grouped_mm": Peer(Grouped, plain_options(False), "in our code", "", ("bf16",)),
}


class NewRows:
    """Draws rows anew in place, outside of the timed calls: `time_in_turn` calls it twice for each candidate."""

    def __init__(self, x: Tensor, candidates: int):
        self.x, self.period, self.count = x, 2 * candidates, 0

    def __call__(self) -> None:
        if self.count % self.period == 0:
            self.x.copy_(torch.randn_like(self.x))
        self.count += 1


def find_missing_gradients(layer: nn.Module, x: Tensor) -> list[str]:
    """Names of the parameters whose gradient after one step is None, zero, or not finite."""
    step_call(layer, x)()
    gradients = {name: parameter.grad for name, parameter in layer.named_parameters()}
    layer.zero_grad(set_to_none=True)
    return [
        name
        for name, gradient in gradients.items()
        if gradient is None or not bool(gradient.isfinite().all()) or not bool(gradient.any())
    ]


def measure(name: str, peer: Peer, shape: Shape, dtype: str, rounds: int, same_rows: bool) -> list[Measurement]:
    """The figures of a peer and of our layer; empty, after printing the reason, where the peer cannot be measured."""
    torch.manual_seed(0)
    x = torch.randn(1, shape.rows, shape.dim).to(DTYPES[dtype])
    label = f"E={shape.experts} {dtype} {name}"
    try:
        peer_layer = peer.make(shape).to(DTYPES[dtype])
        missing = find_missing_gradients(peer_layer, x)
    except ImportError as error:
        print(f"{label:<32} not installed: pip install {peer.install} ({error})")
        return []
    except Exception as error:  # code of other libraries may raise any exception
        print(f"{label:<32} does not run: {type(error).__name__}: {str(error).strip().splitlines()[:1]}")
        return []
    if missing:
        print(f"{label:<32} not measured: no gradient for {', '.join(missing[:3])} and so on, {len(missing)} in all")
        return []
    options = peer.options(shape)
    sizes = {"dim": shape.dim, "experts": shape.experts, "k": shape.k}
    ours = mb.layers.SparseFFN(**sizes, **options).to(DTYPES[dtype])
    rows: list[Measurement] = []
    for mode, make_call in (("forward", forward_call), ("forward+backward", step_call)):
        layers = {"theirs": peer_layer.train(mode != "forward"), "ours": ours.train(mode != "forward")}
        calls = {owner: make_call(layer, x) for owner, layer in layers.items()}
        seconds = durations(time_in_turn(calls, rounds, None if same_rows else NewRows(x, len(calls)), UNCOUNTED))
        times = {owner: [1e3 * value for value in values] for owner, values in seconds.items()}
        title = f"{label}, {mode}"
        rows += [value_row(f"{title}, ours", times["ours"], "ms"), value_row(title, times["theirs"], "ms")]
        rows.append(ratio_row(title, times["theirs"], f"{title}, ours", times["ours"], "ms"))
    for mode, (our_row, peer_row, ratio) in zip(("forward", "forward+backward"), (rows[:3], rows[3:]), strict=True):
        low, high = ratio.spread
        print(
            f"{label:<32} {mode:<17} {peer_row.value:9.1f} ms   ours {our_row.value:8.1f} ms   "
            f"theirs / ours {ratio.ratio:6.2f} ({low:.2f} … {high:.2f})"
        )
    work = ", ".join(f"{key} {value}" for key, value in options.items())
    print(f"{'':<32} both: {work}{'; theirs: ' if peer.note else ''}{peer.note}")
    return rows


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--experts", type=int, action="append", help="default: 8 and 64")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="default: both")
    parser.add_argument("--peer", choices=PEERS, action="append", help="only this one; can be given again")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--hidden", type=int, default=2048, help="of plain experts; of gated ones two thirds")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of PyTorch")
    parser.add_argument("--same-rows", action="store_true", help="the same rows in every round")
    parser.add_argument("--untuned", action="store_true", help="do not tune the allocator")
    options = parser.parse_args()
    prepare_process(options.threads, options.untuned)
    print(
        f"rows {options.rows}, dim {options.dim}, hidden {options.hidden}, k 2; median over {options.rounds} rounds of "
        f"{'the same' if options.same_rows else 'new'} rows"
    )
    rows = []
    for experts in options.experts or (8, 64):
        shape = Shape(options.dim, options.hidden, experts, 2, options.rows)
        for dtype in options.dtype or DTYPES:
            for name in options.peer or PEERS:
                if dtype in PEERS[name].dtypes:
                    rows += measure(name, PEERS[name], shape, dtype, options.rounds, options.same_rows)
                    gc.collect()
    write_rows(rows, options.json)


if __name__ == "__main__":
    main()
