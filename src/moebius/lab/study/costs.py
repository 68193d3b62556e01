"""The cost of an image: multiply-adds and time of every variant's model, as trained and with one expert."""

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
from torch import nn

from moebius.lab.data.batches import Batch, ordered_batches
from moebius.lab.data.split import Dataset
from moebius.lab.model.cost import count_multiply_adds
from moebius.lab.predict import load_run
from moebius.lab.study.plan import Plan
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.training.call_model import call_model
from moebius.lab.training.mixture_parts import gate_experts
from moebius.lab.training.one_expert import cut_to_one_expert
from moebius.lab.training.precision import autocast

ROWS = 256
ROUNDS = 9


def measure_costs(
    plan: Plan, data: Dataset, names: Mapping[str, str] | None = None
) -> dict[str, dict[str, dict[str, float]]]:
    """Multiply-adds and microseconds per test image, for the first seed's model of every variant.

    One batch of test rows, spread evenly over the split, goes through all models in turn, several times over: medians
    of rounds that alternate are comparable where a machine's speed wanders. Each model computes in the number format of
    its training, in the plan's number of threads.

    Arguments:
        plan, data: of the study.
        names: variant of the plan → its name in the result, of those to measure; None for all.

    Returns:
        variant → "as_trained" and, for several experts, "one_expert" → multiply_adds, microseconds per image.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        names = {run.variant: run.variant for run in plan.runs} if names is None else names
        runs = [run for run in plan.runs if run.seed == 0 and run.variant in names]
        batches = {run.scale: _test_batch(data.with_scale(run.scale), plan.device) for run in runs}
        models = [(run, _load(run, plan.device)) for run in runs]
        cases = [(run, model, mode) for run, model in models for mode in _modes(model)]

        def measure(case: tuple[RunSpec, nn.Module, str], call: Callable[[nn.Module, Batch], float]) -> float:
            run, model, mode = case
            cut = cut_to_one_expert(model) if mode == "one_expert" else nullcontext()
            with torch.inference_mode(), cut, autocast(run.training["precision"], plan.device):
                return call(model, batches[run.scale])

        def count(model: nn.Module, batch: Batch) -> float:
            return count_multiply_adds(model, batch.x, {"domain": batch.domains})

        counts = [measure(case, count) for case in cases]
        times: list[list[float]] = [[] for _ in cases]
        for _ in range(ROUNDS + 1):
            for seconds, case in zip(times, cases, strict=True):
                seconds.append(measure(case, _time_call))
    finally:
        torch.set_num_threads(threads_before)
    costs: dict[str, dict[str, dict[str, float]]] = {}
    for (run, _, mode), seconds, multiply_adds in zip(cases, times, counts, strict=True):
        microseconds = statistics.median(seconds[1:]) / len(batches[run.scale].x) * 1e6  # the first round warms up
        costs.setdefault(names[run.variant], {})[mode] = {"multiply_adds": multiply_adds, "microseconds": microseconds}
    return costs


def _test_batch(data: Dataset, device: str) -> Batch:
    rows = torch.linspace(0, len(data.test) - 1, min(ROWS, len(data.test))).long()
    return next(ordered_batches(data.test.take(rows).to(torch.device(device)), ROWS, channels_last=True))


def _load(run: RunSpec, device: str) -> nn.Module:
    model, _ = load_run(run.folder)
    return model.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def _modes(model: nn.Module) -> list[str]:
    several = any(count > 1 for count in gate_experts(model).values())
    return ["as_trained", "one_expert"] if several else ["as_trained"]


def _time_call(model: nn.Module, batch: Batch) -> float:
    begun = time.perf_counter()
    call_model(model, batch.x, batch.domains)
    if batch.x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begun
