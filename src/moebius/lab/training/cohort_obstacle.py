"""Whether runs can train as one, and whether that pays."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from moebius.core.recording import record
from moebius.experts.adapter import Adapter
from moebius.lab.data.batches import Batch, in_order
from moebius.lab.data.split import Dataset
from moebius.lab.training.cohort_model import CohortModel
from moebius.lab.training.optimizer import parts
from moebius.lab.training.settings import Settings
from moebius.layers.mixture import Mixture

# Rows of each of two runs that are tried.
TRIED = 12
# A step of more multiply-adds forward is arithmetic; below, a good part of the time goes to getting a step under way.
# Measured with benchmarks/stacked_runs.py on one core: ten runs stacked are 1.5 to 2 times as fast as one by one up to
# 40 million, 1.1 to 1.2 times at 145 million, and half as fast where they convolve. For a GPU it is an estimate.
WORTH_STACKING: Mapping[str, int] = {"cpu": 100_000_000, "cuda": 1_000_000_000}
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def cohort_obstacle(build: Callable[[], Mixture], settings: Settings, data: Dataset) -> str | None:
    """Why runs of one model cannot train as one, as the end of a sentence; None when they can.

    What a rule does not see a trial does: two models take the same rows stacked and one by one.

    Arguments:
        build: makes the untrained mixture.
        settings: how it is trained.
        data: the rows.
    """
    watch = settings.watch
    if settings.precision != "fp32":
        return f"computes in {settings.precision}, which stacked products round otherwise"
    if settings.augment:
        return "augments images, which draws random numbers for one run after another"
    if watch is not None and (watch.patience is not None or watch.plateau is not None):
        return "ends, or changes its learning rates, by what held-out rows say of each run"
    with torch.random.fork_rng(devices=()):
        models = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            models.append(build().double())
        why = _why_not_built(models[0])
        return why or _why_not_tried(models, data)


@dataclass(frozen=True)
class RowWork:
    """What a model does for one row where all its experts run, as they do in a stack.

    Arguments:
        multiply_adds: forward.
        convolves: whether some of them are convolutions.
    """

    multiply_adds: int
    convolves: bool

    @classmethod
    def of(cls, build: Callable[[], Mixture], data: Dataset) -> "RowWork":
        """The work of the model that `build` makes, for rows like those of `data`."""
        with torch.random.fork_rng(devices=()):
            model = CohortModel([build()]).model.eval()
        batch = _rows(data, 1)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(batch.x, {"domain": batch.domains})
        convolves = any(isinstance(part, _CONVOLUTIONS) for part in model.modules())
        return cls(counter.get_total_flops() // 2, convolves)

    def why_alone(self, batch_size: int, device: str) -> str | None:
        """Why stacks would not be faster, as the end of a sentence; None when they would."""
        step, most = self.multiply_adds * batch_size, WORTH_STACKING[device]
        if device == "cpu" and self.convolves:
            return "has convolutions, which on a CPU take longer for several runs at once than one by one"
        if step > most:
            return f"has {step:,} multiply-adds in a step, and above {most:,} they are what a step waits for"
        return None


def _why_not_built(model: Mixture) -> str | None:
    mixtures = [part for part in model.modules() if isinstance(part, Mixture)]
    if any(isinstance(part, Adapter) for part in model.modules()):
        return "has parts that were there before it, which runs may share"
    if not any(parts(model).values()):
        return "has nothing to train"
    reached = [model]
    for mixture in reached:
        reached += [expert for expert in mixture.experts if isinstance(expert, Mixture)]
    if set(reached) != set(mixtures):
        return "has mixtures inside other modules than mixtures"
    for mixture in mixtures:
        if not isinstance(mixture.experts, nn.ModuleList):
            return "has experts that are stacked themselves"
        if [*mixture.router.parameters(), *mixture.router.buffers()]:
            return "has a router with a state of its own"
        why = _why_not_routed(mixture)
        if why is not None:
            return why
    return None


def _why_not_routed(mixture: Mixture) -> str | None:
    """Scores that nearly all want the same expert, of 64 rows and of the first half of them."""
    router, experts = mixture.router, len(mixture.experts)
    scores = torch.randn(64, router.gate_outputs(experts), dtype=torch.float64)
    scores[:, 0] += 4
    keys = (torch.arange(64),) if router.needs_keys else ()
    before = torch.get_rng_state()
    whole = router(scores, *keys)
    if not torch.equal(before, torch.get_rng_state()):
        return "has a router that draws random numbers"
    half = router(scores[:32], *(key[:32] for key in keys))
    if not router.rows_independent or not torch.allclose(whole.weights[:32], half.weights):
        return "has a router that looks at all rows of a batch together"
    if any(value.shape[:1] != (64,) for value in (*whole.aux.values(), whole.probs)):
        return "has a router whose figures are not one for each row"
    if whole.selection is not None:
        if any(isinstance(expert, Mixture) for expert in mixture.experts):
            return "sends rows to mixtures inside it"
        row_A = whole.selection.row_A
        if not torch.equal(row_A, torch.arange(64).repeat_interleave(len(row_A) // 64)):
            return "has a router whose choices do not go row by row"
    return None


def _why_not_tried(models: list[Mixture], data: Dataset) -> str | None:
    batch = _rows(data, 2 * TRIED)
    x = batch.x.double()
    alone = []
    try:
        for model, rows, domains in zip(models, x.split(TRIED), batch.domains.split(TRIED), strict=True):
            before, state = torch.get_rng_state(), {name: value.clone() for name, value in model.named_buffers()}
            alone.append(_gradients(model, rows, domains, list(model.parameters())))
            if not torch.equal(before, torch.get_rng_state()):
                return "draws random numbers while it trains"
            if any(not torch.equal(value, state[name]) for name, value in model.named_buffers()):
                return "keeps statistics of its own while it trains"
        stack = CohortModel(models)
        together = _gradients(stack.model, x, batch.domains, list(stack.leaves.values()))
    except Exception as error:  # whatever a component that knows nothing of stacks ends in
        said = str(error).strip().splitlines() or [type(error).__name__]
        return f"cannot be run as one ({said[0]})"
    outputs, *gradients = zip(*alone, strict=True)
    expected = [torch.cat(outputs), *map(torch.stack, gradients)]
    if all(torch.allclose(a, b, rtol=1e-6, atol=1e-9) for a, b in zip(expected, together, strict=True)):
        return None
    return "gives other values stacked than one by one"


def _gradients(model: Mixture, x: Tensor, domains: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """The output, and the gradient of a number that it gives for each parameter; 0 for none."""
    with record(model) as log:
        output = model(x, {"domain": domains})
    probs = [routing.probs for calls in log.values() for routing in calls]
    total = torch.stack([torch.where(one.isfinite(), one, 0).square().sum() for one in (output, *probs)]).sum()
    if not total.requires_grad:
        return [output.detach(), *(torch.zeros_like(one) for one in parameters)]
    gradients = torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True)
    return [output.detach(), *gradients]


def _rows(data: Dataset, count: int) -> Batch:
    """Rows that are spread evenly over the training split."""
    rows = torch.linspace(0, len(data.train) - 1, count).long()
    return next(in_order(data.train.take(rows), count))
