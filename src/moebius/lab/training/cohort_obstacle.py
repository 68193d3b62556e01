"""Whether runs can train as a cohort, and whether that is faster."""

from collections.abc import Callable, Mapping
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from moebius.core.recording import record
from moebius.core.routing import Router
from moebius.experts.adapter import Adapter
from moebius.lab.data.batches import Batch, ordered_batches
from moebius.lab.data.split import Dataset
from moebius.lab.training.cohort_model import CohortModel
from moebius.lab.training.mixture_parts import trainable_parts
from moebius.lab.training.settings import Settings
from moebius.layers.mixture import Mixture

# Rows of each of the two runs in a trial.
TRIAL_ROWS = 12
# Multiply-adds forward of a step, below which much of its time is overhead that a cohort shares, and above which it is
# arithmetic. Measured with benchmarks/stacked_runs.py on one core: a cohort of ten runs is 1.5 to 2 times as fast as
# the runs one by one up to 40 million, 1.1 to 1.2 times at 145 million, and half as fast where they convolve. For a GPU
# it is an estimate.
WORTH_A_COHORT: Mapping[str, int] = {"cpu": 100_000_000, "cuda": 1_000_000_000}
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def settings_obstacle(settings: Settings) -> str | None:
    """Why runs with these settings cannot train as a cohort, as the end of a sentence; None when they can."""
    watch = settings.watch
    if settings.precision != "fp32":
        return f"computes in {settings.precision}, which the products of a cohort round otherwise"
    if settings.augment:
        return "augments images, which draws random numbers for one run after another"
    if watch is not None and (watch.patience is not None or watch.plateau is not None):
        return "ends, or changes its learning rates, by the held-out rows of each run"
    return None


class CohortTrial:
    """Tries a model as a cohort: two of it compute outputs and gradients together and one by one.

    Arguments:
        build: makes an untrained mixture; called once, and again for `obstacle`.
        data: the rows.

    Attributes:
        multiply_adds: forward, for one row where all experts run, as they do in a cohort.
        convolves: whether some of them are convolutions.
    """

    def __init__(self, build: Callable[[], Mixture], data: Dataset):
        self.build, self.data = build, data
        self.model = self._build(0)
        self.convolves = any(isinstance(module, _CONVOLUTIONS) for module in self.model.modules())
        batch = _rows(data, 1)
        all_experts, counter = record(self.model.eval(), outputs=True), FlopCounterMode(display=False)
        with torch.random.fork_rng(devices=()), torch.no_grad(), all_experts, counter:
            self.model(batch.x.double(), {"domain": batch.domains})
        self.model.train()
        self.multiply_adds = counter.get_total_flops() // 2

    def slowness(self, batch_size: int, device: str) -> str | None:
        """Why a cohort would not be faster, as the end of a sentence; None when it would be."""
        step, limit = self.multiply_adds * batch_size, WORTH_A_COHORT[device]
        if device == "cpu" and self.convolves:
            return "has convolutions, which on a CPU take longer for several runs at once than one by one"
        if step > limit:
            return f"has {step:,} multiply-adds in a step, and above {limit:,} they take most of its time"
        return None

    @cached_property
    def obstacle(self) -> str | None:
        """Why runs of the model cannot train as a cohort, as the end of a sentence; None when they can."""
        if any(isinstance(module, Adapter) for module in self.model.modules()):
            return "has networks made before it, which runs may share"
        if any(isinstance(module, Router) and [*module.buffers()] for module in self.model.modules()):
            return "has a router with a state of its own"
        if not any(trainable_parts(self.model).values()):
            return "has nothing to train"
        models = [self.model, self._build(1)]
        batch = _rows(self.data, 2 * TRIAL_ROWS)
        x, separate = batch.x.double(), []
        pieces = zip(models, x.split(TRIAL_ROWS), batch.domains.split(TRIAL_ROWS), strict=True)
        with torch.random.fork_rng(devices=()):
            try:
                for model, rows, domains in pieces:
                    random, buffers = torch.get_rng_state(), [value.clone() for value in model.buffers()]
                    separate.append(_values(model, rows, domains, list(model.parameters())))
                    if not torch.equal(random, torch.get_rng_state()):
                        return "draws random numbers while it trains"
                    if not all(map(torch.equal, buffers, model.buffers())):
                        return "keeps running statistics while it trains"
                cohort = CohortModel(models)
                joint = _values(cohort.model, x, batch.domains, list(cohort.leaves.values()))
            except Exception as error:  # components raise anything where they cannot be vectorised over runs
                lines = str(error).strip().splitlines() or [type(error).__name__]
                return f"cannot be run as one ({lines[0]})"
        outputs, totals, *gradients = zip(*separate, strict=True)
        expected = [torch.cat(outputs), torch.stack(totals).sum(), *map(torch.stack, gradients)]
        if all(torch.allclose(a, b, rtol=1e-6, atol=1e-9) for a, b in zip(expected, joint, strict=True)):
            return None
        return "gives other values in a cohort than alone"

    def _build(self, seed: int) -> Mixture:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            return self.build().double()


def _values(model: Mixture, x: Tensor, domains: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """The output, one number made of output and probs, and its gradient for each parameter; 0 where it has none."""
    with record(model) as log:
        output = model(x, {"domain": domains})
    probs = [routing.probs for calls in log.values() for routing in calls]
    total = torch.stack([torch.where(value.isfinite(), value, 0).square().sum() for value in (output, *probs)]).sum()
    if total.requires_grad:
        gradients = torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True)
    else:
        gradients = map(torch.zeros_like, parameters)
    return [output.detach(), total.detach(), *gradients]


def _rows(data: Dataset, count: int) -> Batch:
    """Rows that are spread evenly over the training split."""
    rows = torch.linspace(0, len(data.train) - 1, count).long()
    return next(ordered_batches(data.train.take(rows), count))
