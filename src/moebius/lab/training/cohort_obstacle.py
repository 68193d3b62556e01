"""Whether runs can train as a cohort, and whether that is faster."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from moebius.core.recording import record
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


def cohort_obstacle(build: Callable[[], Mixture], settings: Settings, data: Dataset) -> str | None:
    """Why runs of one model cannot train as a cohort, as the end of a sentence; None when they can.

    Rules decide first, then a trial: two models compute outputs and gradients as a cohort and one by one.

    Arguments:
        build: makes the untrained mixture.
        settings: how the runs are trained.
        data: the rows.
    """
    watch = settings.watch
    if settings.precision != "fp32":
        return f"computes in {settings.precision}, which the products of a cohort round otherwise"
    if settings.augment:
        return "augments images, which draws random numbers for one run after another"
    if watch is not None and (watch.patience is not None or watch.plateau is not None):
        return "ends, or changes its learning rates, by the held-out rows of each run"
    with torch.random.fork_rng(devices=()):
        models = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            models.append(build().double())
        return _structure_obstacle(models[0]) or _trial_obstacle(models, data)


@dataclass(frozen=True)
class RowWork:
    """The work of a model for one row where all its experts run, as they do in a cohort.

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
        convolves = any(isinstance(module, _CONVOLUTIONS) for module in model.modules())
        return cls(counter.get_total_flops() // 2, convolves)

    def obstacle(self, batch_size: int, device: str) -> str | None:
        """Why a cohort would not be faster, as the end of a sentence; None when it would be."""
        step, limit = self.multiply_adds * batch_size, WORTH_A_COHORT[device]
        if device == "cpu" and self.convolves:
            return "has convolutions, which on a CPU take longer for several runs at once than one by one"
        if step > limit:
            return f"has {step:,} multiply-adds in a step, and above {limit:,} they take most of its time"
        return None


def _structure_obstacle(model: Mixture) -> str | None:
    mixtures = [module for module in model.modules() if isinstance(module, Mixture)]
    if any(isinstance(module, Adapter) for module in model.modules()):
        return "has networks made before it, which runs may share"
    if not any(trainable_parts(model).values()):
        return "has nothing to train"
    nested = [model]
    for mixture in nested:
        nested += [expert for expert in mixture.experts if isinstance(expert, Mixture)]
    if set(nested) != set(mixtures):
        return "has mixtures inside other modules than mixtures"
    for mixture in mixtures:
        if not isinstance(mixture.experts, nn.ModuleList):
            return "has experts in a stack"
        if [*mixture.router.parameters(), *mixture.router.buffers()]:
            return "has a router with parameters or buffers"
        obstacle = _router_obstacle(mixture)
        if obstacle is not None:
            return obstacle
    return None


def _router_obstacle(mixture: Mixture) -> str | None:
    """Tries the router on 64 rows that nearly all prefer one expert, and on the first half of them."""
    router, experts = mixture.router, len(mixture.experts)
    scores = torch.randn(64, router.gate_outputs(experts), dtype=torch.float64)
    scores[:, 0] += 4
    keys = (torch.arange(64),) if router.needs_keys else ()
    before = torch.get_rng_state()
    routing = router(scores, *keys)
    if not torch.equal(before, torch.get_rng_state()):
        return "has a router that draws random numbers"
    half_routing = router(scores[:32], *(key[:32] for key in keys))
    if not router.rows_independent or not torch.allclose(routing.weights[:32], half_routing.weights):
        return "has a router that looks at all rows of a batch together"
    if any(value.shape[:1] != (64,) for value in (*routing.aux.values(), routing.probs)):
        return "has a router whose aux is not one value for each row"
    if routing.selection is not None:
        if any(isinstance(expert, Mixture) for expert in mixture.experts):
            return "sends rows to mixtures inside it"
        row_A = routing.selection.row_A
        if not torch.equal(row_A, torch.arange(64).repeat_interleave(len(row_A) // 64)):
            return "has a router whose assignments are not in the order of rows"
    return None


def _trial_obstacle(models: list[Mixture], data: Dataset) -> str | None:
    batch = _rows(data, 2 * TRIAL_ROWS)
    x = batch.x.double()
    separate = []
    try:
        for model, rows, domains in zip(models, x.split(TRIAL_ROWS), batch.domains.split(TRIAL_ROWS), strict=True):
            before, state = torch.get_rng_state(), {name: value.clone() for name, value in model.named_buffers()}
            separate.append(_gradients(model, rows, domains, list(model.parameters())))
            if not torch.equal(before, torch.get_rng_state()):
                return "draws random numbers while it trains"
            if any(not torch.equal(value, state[name]) for name, value in model.named_buffers()):
                return "keeps running statistics while it trains"
        cohort = CohortModel(models)
        joint = _gradients(cohort.model, x, batch.domains, list(cohort.leaves.values()))
    except Exception as error:  # components raise anything where they cannot be vectorised over runs
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"cannot be run as one ({lines[0]})"
    outputs, *gradients = zip(*separate, strict=True)
    expected = [torch.cat(outputs), *map(torch.stack, gradients)]
    if all(torch.allclose(a, b, rtol=1e-6, atol=1e-9) for a, b in zip(expected, joint, strict=True)):
        return None
    return "gives other values in a cohort than alone"


def _gradients(model: Mixture, x: Tensor, domains: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """The output, and for each parameter the gradient of one number made of output and probs; 0 where it has none."""
    with record(model) as log:
        output = model(x, {"domain": domains})
    probs = [routing.probs for calls in log.values() for routing in calls]
    total = torch.stack([torch.where(value.isfinite(), value, 0).square().sum() for value in (output, *probs)]).sum()
    if not total.requires_grad:
        return [output.detach(), *(torch.zeros_like(parameter) for parameter in parameters)]
    gradients = torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True)
    return [output.detach(), *gradients]


def _rows(data: Dataset, count: int) -> Batch:
    """Rows that are spread evenly over the training split."""
    rows = torch.linspace(0, len(data.train) - 1, count).long()
    return next(ordered_batches(data.train.take(rows), count))
