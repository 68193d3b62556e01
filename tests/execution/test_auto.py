"""The rule that chooses an execution."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.execution._gpu_choice import reason_for_fused
from moebius.execution._pool import Pool
from moebius.execution.auto import Auto, Choice, choose
from moebius.execution.loop import Loop

auto = Auto()
loop = Loop()

X = torch.linspace(-1, 1, 20).view(5, 4)
SOFT, HARD = mb.routers.Soft(), mb.routers.Argmax()
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def make_several(make, count=2):
    return [make() for _ in range(count)]


def linear():
    return mb.experts.Linear(4, 3)


def ffn():
    return mb.experts.FFN(4, 3)


def conv():
    return nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2), nn.Flatten())


def choose_on_gpu(experts, x, router):
    return choose(Pool(experts.cuda()), router(torch.zeros(len(x), 2, device="cuda")), x.cuda())


@pytest.mark.parametrize(
    ("make_experts", "router", "choice"),
    [
        (lambda: [ffn()], HARD, ("loop", "there is one expert")),
        (lambda: make_several(linear), SOFT, ("stacked", "equal experts all run: one product")),
        (lambda: mb.Stack(make_several(conv)), SOFT, ("stacked", "equal experts all run: one product")),
        (
            lambda: [linear(), nn.Linear(4, 3), linear()],
            SOFT,
            ("stacked", "equal experts among unlike ones all run: one product for each kind"),
        ),
        (lambda: make_several(conv), SOFT, ("loop", "Sequential has no product of its own for equal experts")),
        (lambda: [linear(), conv()], SOFT, ("loop", "stacked needs equal experts: their classes differ")),
        (
            lambda: mb.Stack(make_several(ffn)),
            HARD,
            ("sorted", "feed-forward experts on a CPU have an operator for sorted rows"),
        ),
        (
            lambda: mb.Stack(make_several(conv)),
            HARD,
            (
                "sorted",
                "each expert runs on its rows, gathered once; "
                "experts.0 is a Unflatten, which no product of dense layers knows",
            ),
        ),
        (lambda: make_several(ffn), HARD, ("sorted", "each expert runs on its rows, gathered once")),
    ],
)
def test_what_is_chosen_and_why(make_experts, router, choice):
    experts = make_experts()
    routing = router(torch.zeros(5, len(experts)))
    pool = Pool(experts)
    assert choose(pool, routing, X) == choose(pool, routing, X) == choice
    torch.testing.assert_close(auto(experts, routing, X), loop(experts, routing, X))


def test_where_stacking_is_not_the_loop_it_loops():
    dropping = mb.Stack(make_several(lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))))
    routing = SOFT(torch.zeros(5, 2))
    choice = choose(Pool(dropping), routing, X)
    assert choice.name == "loop"
    assert (
        choice.reason
        == "stacked may differ from the loop: experts.1 is active dropout, which draws for other rows than the loop"
    )
    assert choose(Pool(dropping.eval()), routing, X).name == "stacked"


def test_a_mixture_gives_its_choice_and_runs_no_expert():
    calls = []
    experts = make_several(linear)
    moe = mb.Mixture(mb.gates.Linear(4, 2), experts, HARD)
    experts[0].register_forward_hook(lambda *_: calls.append(0))
    assert moe.chosen(X) == Choice("sorted", "each expert runs on its rows, gathered once")
    moe.execution = loop
    assert moe.chosen(X.view(1, 5, 4)) == ("loop", "the mixture was made with it")
    assert not calls


def test_an_export_holds_every_expert():
    choices = []

    class Probe(nn.Module):
        def __init__(self):
            super().__init__()
            self.moe = mb.Mixture(mb.gates.Linear(4, 2), mb.Stack(make_several(ffn)), mb.routers.TopK(1))

        def forward(self, x):
            choices.append(self.moe.chosen(x))
            return self.moe(x)

    torch.export.export(Probe(), (X,), strict=False)
    assert choices[0] == ("dense", "an exported graph has to hold every expert")


@NO_GPU
def test_on_a_gpu():
    many, few = X.repeat(20, 1), X
    assert choose_on_gpu(mb.Stack(make_several(ffn)), few, HARD) == (
        "gather",
        "5 assignments are few: each reads its expert's weights",
    )
    assert choose_on_gpu(mb.Stack(make_several(ffn)), many, HARD).name == "fused"  # float32
    has_kernel = torch.version.hip is not None or torch.cuda.get_device_capability()[0] in (9, 10)
    in_bf16 = choose_on_gpu(mb.Stack(make_several(ffn)).bfloat16(), many.bfloat16(), HARD)
    assert in_bf16.name == ("grouped" if has_kernel else "fused")
    linears = mb.Stack(make_several(linear))
    assert choose_on_gpu(linears.bfloat16(), many.bfloat16(), HARD).name == "grouped"
    assert choose_on_gpu(linears.float(), many, HARD).name == "sorted"


MEASURED = (4096, 2048, 1024)  # rows an expert, features, hidden
H200, A100, ROCM = (9, 0), (8, 0), None


@pytest.mark.parametrize(
    ("sizes", "capability", "obstacle", "part_of_reason"),
    [
        (MEASURED, H200, None, "measured ahead of grouped at 4,096 rows an expert, 2,048 features, 1,024 hidden"),
        ((2048, 1024, 512), H200, None, "these sizes are near"),
        ((8192, 4096, 2048), H200, None, "these sizes are near"),
        ((8193, 2048, 1024), H200, None, None),
        ((2047, 2048, 1024), H200, None, None),
        ((4096, 4097, 1024), H200, None, None),
        ((4096, 2048, 511), H200, None, None),
        (MEASURED, (10, 0), None, None),
        (MEASURED, ROCM, None, None),
        (MEASURED, A100, None, "torch has none for grouped products on compute capability 8.0"),
        ((64, 128, 256), (12, 0), None, "torch has none for grouped products on compute capability 12.0"),
        ((64, 128, 256), H200, "needs bf16, and these rows are torch.float32", "grouped needs bf16"),
    ],
)
def test_fused_runs_where_it_is_measured_ahead_or_grouped_has_no_kernel(sizes, capability, obstacle, part_of_reason):
    reason = reason_for_fused(*sizes, capability, obstacle)
    assert reason is None if part_of_reason is None else part_of_reason in reason
