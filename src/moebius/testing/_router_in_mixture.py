"""The contract of routers: inside a mixture, with padding among its rows."""

from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from moebius.core.recording import record
from moebius.core.routing import Router
from moebius.core.stack import Stack
from moebius.layers.mixture import Mixture
from moebius.testing._contract import require, require_close, require_dtype
from moebius.testing._router_scores import EXPERTS, MODES
from moebius.testing._subject import Subject
from moebius.testing._variation import vary_arguments
from moebius.testing.padding import MASK, compare_masked, make_tokens


def gives_the_same_by_every_expert_and_by_the_chosen(subject: Subject) -> None:
    """A mixture that runs just the chosen experts gives what all experts at once give, outputs and gradients."""
    for (rows, experts), training in product([(9, 4), (1, 4), (0, 4), (5, 1)], MODES):
        results = [_run_mixture(subject, rows, experts, training, execution) for execution in ("loop", "stacked")]
        rule = f"gives another output or gradient where all of {experts} experts run than where the chosen run"
        require_close(results[0], results[1], f"{rule} ({rows} rows, {training=})")


def decides_in_float32_where_a_mixture_computes_in_bfloat16(subject: Subject) -> None:
    """Under autocast weights are float32, and gradients of the mixture are finite."""
    for training in MODES:
        router = subject.make().train(training)
        moe = _mixture(router).train(training)
        with torch.autocast("cpu", torch.bfloat16), record(moe) as log:
            y = moe(_rows(12))
        require_dtype(log[""][0].weights, torch.float32, "weights under autocast")
        y.float().square().sum().backward()
        finite = all(p.grad.isfinite().all() for p in moe.parameters() if p.grad is not None)
        require(finite, "has gradients that are not finite under autocast")


def permuting_rows_permutes_outputs(subject: Subject) -> None:
    """An output of a mixture does not depend on the row's place, in eval."""
    moe, x, order = _mixture(subject.make()).eval(), _rows(12), torch.arange(12).flip(0)
    require_close(moe(x[order]), moe(x)[order], "routes rows of a mixture by their place: permuted rows differ")


def leaves_padding_out(subject: Subject) -> None:
    """A masked batch gives what the batch without padding gives, with and without all experts' outputs."""
    for training, outputs in product(MODES, MODES):
        moe = _padded_mixture(subject).train(training)
        count = compare_masked(moe, make_tokens(), MASK, outputs=outputs)
        require(count >= 3, f"gives a routing that only {count} losses can be taken of")


def leaves_padding_out_in_a_stack(subject: Subject) -> None:
    """The same for a mixture of stacked experts inside a block with a mask."""
    compare_masked(_padded_mixture(subject, stacked=True), make_tokens(), MASK, way="block", outputs=True)


def leaves_out_no_row_all_rows_and_whole_sequences(subject: Subject) -> None:
    """The same for masks that are True everywhere, nowhere, or for whole sequences."""
    for mask in (torch.zeros(3, 5).bool(), torch.ones(3, 5).bool(), torch.tensor([True, False, True])):
        compare_masked(_padded_mixture(subject), make_tokens(), mask)


def gives_the_same_with_a_mask_that_leaves_nothing_out(subject: Subject) -> None:
    """A mask of True changes nothing."""
    moe, outputs = _padded_mixture(subject), []
    for options in ({}, {"mask": torch.ones(3, 5, dtype=torch.bool)}):
        torch.manual_seed(1)
        outputs.append(moe(make_tokens(), **options))
    require_close(outputs[0], outputs[1], "gives another output with a mask that leaves nothing out")


class GateWithAux(nn.Linear):
    """Scores, and the values that some losses read beside them."""

    gives_aux = True

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:  # type: ignore[override]
        """Scores (…, G), and two values of each row."""
        scores = super().forward(x)
        return scores, {"reconstruction": scores.square().sum(-1), "kl": scores.abs().sum(-1)}


def _rows(count: int) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(1))


def _mixture(router: Router) -> Mixture:
    return Mixture(nn.Linear(5, router.gate_outputs(EXPERTS)), [nn.Linear(5, 3) for _ in range(EXPERTS)], router)


def _run_mixture(subject: Subject, rows: int, experts: int, training: bool, execution: str) -> list[Any]:
    """Output, gradients and weights of a mixture; where the execution is `stacked` all experts' outputs are kept."""
    router = subject.make(experts=experts).double().train(training)
    gate = nn.Linear(5, router.gate_outputs(experts)).double()
    pool = [nn.Linear(5, 3).double() for _ in range(experts)]
    moe = Mixture(gate, pool, router, execution=execution).train(training)
    x = torch.randn(rows, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    torch.manual_seed(2)
    with record(moe, outputs=execution == "stacked") as log:
        y = moe(x)
    (y * torch.arange(3)).square().sum().backward()
    missing = [name for name, parameter in moe.experts.named_parameters() if parameter.grad is None]
    require(not missing, f"leaves experts without a gradient: {missing}")
    gradients = [parameter.grad for parameter in moe.parameters() if parameter.grad is not None]
    return [y.detach(), x.grad, gradients, log[""][0].weights.detach()]


def _padded_mixture(subject: Subject, stacked: bool = False) -> Mixture:
    """A mixture whose router has a bias and a capacity that drops rows, where it knows these."""
    varied = {name: value for name, value in vary_arguments(subject).items() if name == "bias_rate"}
    router = subject.make(**varied, capacity=1.0)
    torch.manual_seed(0)
    experts = [nn.Linear(4, 3) for _ in range(EXPERTS)]
    gate = GateWithAux(4, router.gate_outputs(EXPERTS))
    return Mixture(gate, Stack(experts) if stacked else experts, router).double()


MIXTURE_CHECKS = (
    gives_the_same_by_every_expert_and_by_the_chosen,
    decides_in_float32_where_a_mixture_computes_in_bfloat16,
    permuting_rows_permutes_outputs,
    leaves_padding_out,
    leaves_padding_out_in_a_stack,
    leaves_out_no_row_all_rows_and_whole_sequences,
    gives_the_same_with_a_mask_that_leaves_nothing_out,
)
