"""The fused execution in Triton's interpreter, or on a GPU where there is one.

Whether Triton interprets is decided when it is imported, so that the checks (`check_…`, `compile_…`, and `lower_…`,
which compiles for a GPU without needing one) run in separate processes.
"""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import moebius as mb
from moebius.core.routing import Selection
from moebius.execution._pool import Pool
from moebius.execution._triton import fused_ffn, obstacle
from moebius.execution._triton.tile_order import order_tiles
from moebius.execution.auto import choose_for_many_rows
from moebius.kit.errors import ArgumentError
from moebius.networks.feed_forward import FEED_FORWARD, GATED, feed_forward_activation

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETER = {"TRITON_INTERPRET": "1"} if DEVICE == "cpu" else {}
needs_triton = pytest.mark.skipif(sys.platform != "linux", reason="there is no Triton for this system")


def run_here(functions, *options, **environment):
    options = ("-o", f"python_functions={functions}", "-p", "no:cacheprovider", *options)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", __file__, *options],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]


@needs_triton
def test_the_checks_hold():
    run_here("check_*", **INTERPRETER)


@needs_triton
def test_compiled_it_is_one_graph():
    # Without type checks, which compilers cannot follow.
    run_here("compile_*", "-o", "addopts=--import-mode=importlib", **INTERPRETER)


@needs_triton
@pytest.mark.thorough
def test_the_kernels_compile_for_a_gpu(tmp_path):
    run_here("lower_*", TRITON_CACHE_DIR=str(tmp_path))


def test_nothing_loads_triton_before_it_is_used():
    code = "import sys, moebius, moebius.execution._triton; print('triton' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "False"


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter takes tensors of a CPU")
def test_what_cannot_run_says_why():
    assert obstacle(torch.zeros(2, 3)) in ("needs a GPU", "needs Triton, which is not installed")
    sample = Problem(2, 3, 4, 2, 1, device="cpu")
    with pytest.raises(ArgumentError, match="execution: fused needs"):
        fused_ffn(*sample.tensors[:5], "gelu", sample.selection)


class Problem:
    """Random rows, experts and a random routing of them."""

    def __init__(
        self, rows, features, hidden, experts, k, activation="gelu", bias=True, kept=1.0, seed=0, device=DEVICE
    ):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape, scale=1.0):
            return (scale * torch.randn(*shape, generator=generator)).to(device).requires_grad_()

        self.activation, self.count = activation, rows * k
        width = hidden * (2 if activation in GATED else 1)
        self.tensors = [
            normal(rows, features),
            normal(experts, width, features, scale=features**-0.5),
            normal(experts, width) if bias else None,
            normal(experts, features, hidden, scale=hidden**-0.5),
            normal(experts, features) if bias else None,
            normal(rows * k),
        ]
        self.upstream = normal(rows, features).detach()
        order = torch.randperm(rows * k, generator=generator)
        self.row_A = torch.arange(rows).repeat_interleave(k)[order].to(device)
        self.expert_A = torch.randint(experts, (rows * k,), generator=generator).to(device)
        self.kept_A = (torch.rand(rows * k, generator=generator) < kept).to(device)

    @property
    def selection(self):
        return Selection(self.row_A, self.expert_A, self.tensors[5], self.kept_A)

    def fused(self, dtype=torch.float32):
        """Outputs and gradients of the kernels; router weights are float32, as routers give them."""
        return self._run(fused_ffn, [dtype] * 5 + [torch.float32])

    def looped(self):
        """Outputs and gradients of a plain loop in float64."""
        return self._run(loop, [torch.float64] * 6)

    def _run(self, execution, dtypes):
        leaves = [
            None if tensor is None else tensor.detach().to(dtype).requires_grad_(tensor.requires_grad)
            for tensor, dtype in zip(self.tensors, dtypes, strict=True)
        ]
        *experts, weight_A = leaves
        y = execution(*experts, self.activation, dataclasses.replace(self.selection, weight_A=weight_A))
        y.backward(self.upstream.to(y.dtype))
        return [y.detach(), *(leaf.grad for leaf in leaves if leaf is not None and leaf.requires_grad)]


def loop(x, inner, inner_bias, outer, outer_bias, activation, selection):
    y = torch.zeros_like(x)
    for expert in range(len(inner)):
        place_A = torch.nonzero(selection.kept_A & (selection.expert_A == expert)).flatten()
        rows = selection.row_A[place_A]
        hidden = feed_forward_activation(
            activation, x[rows] @ inner[expert].T + (0 if inner_bias is None else inner_bias[expert])
        )
        value = hidden @ outer[expert].T + (0 if outer_bias is None else outer_bias[expert])
        y = y.index_add(0, rows, selection.weight_A[place_A, None] * value)
    return y + 0 * (inner.sum() + outer.sum() + selection.weight_A.sum())


def assert_close(results, expected, tolerance=1e-5):
    for result, reference in zip(results, expected, strict=True):
        assert result.shape == reference.shape
        assert torch.isfinite(result).all()
        assert (result.double() - reference).norm() <= tolerance * reference.norm() + 1e-30


@pytest.mark.parametrize("activation", FEED_FORWARD)
def check_it_is_the_loop(activation):
    # Two tiles of rows for one expert, no width a multiple of a tile's, dropped assignments, an expert without rows.
    sample = Problem(17, 20, 24, 3, 2, activation, kept=0.9)
    sample.expert_A = sample.expert_A.clamp(max=1)
    assert_close(sample.fused(), sample.looped())


@settings(max_examples=8)
@given(
    *(st.integers(0, 12), st.integers(1, 35), st.integers(1, 35), st.integers(1, 5), st.integers(1, 3)),
    *(st.sampled_from(FEED_FORWARD), st.booleans(), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 1000)),
)
def check_it_is_the_loop_for_any_shape_and_routing(rows, features, hidden, experts, k, activation, bias, kept, seed):
    sample = Problem(rows, features, hidden, experts, k, activation, bias, kept, seed)
    assert_close(sample.fused(), sample.looped())


@pytest.mark.parametrize("activation", FEED_FORWARD)
def check_second_derivatives_are_the_loops(activation):
    sample = Problem(7, 5, 6, 3, 2, activation, kept=0.8)

    def second(execution, dtype):
        leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in sample.tensors]
        *experts, weight_A = leaves
        y = execution(*experts, activation, dataclasses.replace(sample.selection, weight_A=weight_A))
        gradients = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), leaves)

    assert_close(second(fused_ffn, torch.float32), second(loop, torch.float64), 1e-4)


def check_all_rows_to_one_expert():
    sample = Problem(40, 16, 16, 3, 1, "swiglu", bias=False)
    sample.expert_A = torch.ones_like(sample.expert_A)
    ours = sample.fused()
    assert_close(ours, sample.looped())
    assert all(gradient[[0, 2]].count_nonzero() == 0 for gradient in ours[2:4])


def check_a_row_by_hand():
    sample = Problem(1, 1, 1, 1, 1, "relu2", bias=True)
    numbers = (2, 3, -1, 4, 7, 0.5)
    values = [torch.full_like(tensor, number) for tensor, number in zip(sample.tensors, numbers, strict=True)]
    sample.tensors, sample.upstream = [value.requires_grad_() for value in values], torch.ones_like(values[0])
    # h = 3 · 2 − 1 = 5, a = 25, 4 a + 7 = 107, half of it; dh = 0.5 · 4 · 2 h = 20.
    results = [float(value) for value in sample.fused()]
    assert results == [53.5, 20 * 3, 20 * 2, 20, 0.5 * 25, 0.5, 107]


def check_rows_and_assignments_may_be_missing():
    for sample in (Problem(0, 5, 6, 2, 2, "geglu"), Problem(3, 5, 6, 2, 2, "geglu", kept=0.0)):
        ours = sample.fused()
        assert [gradient.shape for gradient in ours[1:]] == [tensor.shape for tensor in sample.tensors]
        assert all(result.count_nonzero() == 0 for result in ours)


@pytest.mark.parametrize(("activation", "dtype"), [("geglu", torch.bfloat16), ("gelu", torch.float16)])
def check_half_precision_is_near_the_loop(activation, dtype):
    sample = Problem(12, 24, 40, 3, 2, activation)
    ours = sample.fused(dtype)
    assert [result.dtype for result in ours] == [dtype] * 6 + [torch.float32]
    assert_close(ours, sample.looped(), 2e-2 if dtype == torch.bfloat16 else 2e-3)


def check_what_needs_no_gradient_gets_none():
    sample = Problem(9, 8, 8, 2, 2)
    complete = sample.fused()
    for frozen in ([0], [1, 2, 3, 4], [0, 5]):
        for place, tensor in enumerate(sample.tensors):
            tensor.requires_grad_(place not in frozen)
        expected = [complete[0], *(complete[place + 1] for place in range(6) if place not in frozen)]
        assert_close(sample.fused(), expected, 0)
    with torch.no_grad():
        *experts, _ = sample.tensors
        assert torch.equal(fused_ffn(*experts, "gelu", sample.selection), complete[0])


def check_the_same_bits_twice():
    sample = Problem(20, 16, 16, 2, 3, "swiglu")
    assert all(torch.equal(*results) for results in zip(sample.fused(), sample.fused(), strict=True))


def compile_for_all_routings():
    compiled = torch.compile(fused_ffn, fullgraph=True, backend="aot_eager", dynamic=False)
    sample = Problem(9, 12, 12, 2, 2, "geglu")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for expert_A in (sample.expert_A, torch.zeros_like(sample.expert_A)):
            sample.expert_A = expert_A
            readable = sample.fused()
            assert_close(sample._run(compiled, [torch.float32] * 6), readable, 1e-6)


def check_operators_are_what_they_say():
    from moebius.execution._triton import operators

    sample = Problem(5, 6, 7, 2, 2, "swiglu")
    plan, detached = order_tiles(sample.selection, 5, 2, 16).tensors, [tensor.detach() for tensor in sample.tensors]
    torch.library.opcheck(operators.forward, (*sample.tensors, plan, 16, "swiglu", True))
    torch.library.opcheck(operators.forward, (*detached, plan, 16, "swiglu", False), test_utils="test_faketensor")
    dy, h = torch.ones_like(detached[0]), torch.randn(10, 14, device=DEVICE)
    for needed in (True, False):
        arguments = (dy, *detached, h, plan, 16, "swiglu", needed, needed)
        torch.library.opcheck(operators.backward, arguments, test_utils="test_faketensor")


def check_reasons():
    x = torch.zeros(2, 3, device=DEVICE)
    assert obstacle(x, x, None) is None
    assert obstacle(x.double()) == "needs float32, bfloat16 or float16, not float64"
    assert obstacle(x, x.bfloat16()) == "needs rows and experts of one type"
    sample = Problem(2, 3, 4, 2, 1)
    with pytest.raises(ArgumentError, match="swiglu needs"):
        fused_ffn(*sample.tensors[:5], "swiglu", sample.selection)
    with pytest.raises(ArgumentError, match="needs one of gelu"):
        fused_ffn(*sample.tensors[:5], "relu", sample.selection)


def check_choice():
    stack = mb.Stack.of(lambda: mb.experts.FFN(8, 16, "swiglu", bias=False), 2).to(DEVICE)
    x = torch.zeros(40, 8, device=DEVICE)
    routing = mb.routers.TopK(1)(torch.zeros(40, 2, device=DEVICE))
    choices = []
    for dtype, capability in ((torch.bfloat16, (9, 0)), (torch.bfloat16, (8, 0)), (torch.float32, (9, 0))):
        choices.append(choose_for_many_rows(Pool(stack.to(dtype)), routing, x.to(dtype), capability))
    assert [execution.name for execution, _ in choices] == ["grouped", "fused", "fused"]
    assert [reason.split(":")[0] for _, reason in choices] == [
        "torch's grouped product",
        "kernels of the library",
        "kernels of the library",
    ]


# The compile-time arguments of each kernel.
EVEN = {"EVEN_N": True, "EVEN_K": True, "TILES": 8, "BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64}
UNEVEN = {**EVEN, "EVEN_N": False, "EVEN_K": False, "BLOCK_M": 16, "BLOCK_N": 64}
LOWERED = {
    "up": {"ACTIVATION": "swiglu", "GATED": True, "BIAS": False, "KEEP": True, **EVEN},
    "down": {"TRANSPOSED": True, "BIAS": True, "WEIGHTED": True, **UNEVEN},
    "down_backward": {"ACTIVATION": "geglu", "GATED": True, "PART": 64, **EVEN},
    "outer_product": {"GATHER_LEFT": True, "TILES": 8, "BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64},
    "row_sum": {"BLOCK_N": 2048},
    "expert_sum": {"WEIGHTED_ROWS": True, "BLOCK_M": 64, "BLOCK_N": 64},
    "bias_part": {"BLOCK_M": 64, "BLOCK_N": 64},
}


@pytest.mark.parametrize("name", LOWERED)
def lower_for_hopper(name):
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from moebius.execution._triton import gradients, products

    constants = LOWERED[name]
    kernel = getattr(products, name, None) or getattr(gradients, name)
    types = {}
    for argument in kernel.arg_names:
        if argument in constants or (argument == "bias" and constants.get("BIAS") is False):
            types[argument] = "constexpr"
        elif argument in ("weight_P", "part_A"):
            types[argument] = "*fp32"
        elif argument in ("tiles", "parts", "D", "H", "M", "N", "K"):
            types[argument] = "i32"
        else:
            types[argument] = "*i32" if "_" in argument else "*bf16"
    fixed = {argument: constants.get(argument) for argument, type in types.items() if type == "constexpr"}
    source = ASTSource(kernel, types, fixed)
    warps = 8 if constants["BLOCK_N"] == 128 else 4
    options = {"num_warps": warps, "num_stages": 3, "enable_fp_fusion": True}
    kernel = compile_kernel(source, target=GPUTarget("cuda", 90, 32), options=options)
    # Large tiles use Hopper's matrix units for groups of warps; no kernel adds to what another program wrote.
    assert ("wgmma" in kernel.asm["ptx"]) == (warps == 8)
    assert "atom." not in kernel.asm["ptx"]
    assert "red.global" not in kernel.asm["ptx"]
