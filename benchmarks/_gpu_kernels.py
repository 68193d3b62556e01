"""Part `kernels` of `gpu.py`: the fused kernels beside a loop in float32, and their tests."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import torch
from _compare import Measurement
from _gpu_conditions import Conditions, Item
from _gpu_problem import LARGE, TINY, Problem, Shape, relative_errors

from moebius.lab.bench.timing import value_row
from moebius.networks.feed_forward import FEED_FORWARD

ROOT = Path(__file__).parents[1]
TESTS = ("test_triton.py", "test_compile.py", "test_in_mixtures.py")
# Largest relative error of an output or a gradient.
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
# On a GPU float32 products may round to fewer bits.
GPU_LIMIT = 2e-3


def make_items(conditions: Conditions) -> dict[str, Item]:
    """The errors at tiny shapes for all activations, those at the shapes of the README, then the tests."""
    items: dict[str, Item] = {}
    for shape in TINY:
        for activation in FEED_FORWARD:
            items[f"{shape} {activation} fp32"] = _errors_item(conditions, shape, activation, torch.float32)
    for shape in () if conditions.dry else LARGE:
        items[f"{shape} swiglu bf16"] = _errors_item(conditions, shape, "swiglu", torch.bfloat16)
    for name in TESTS[:1] if conditions.dry else TESTS:
        items[f"pytest {name}"] = _tests_item(conditions, name)
    return items


def _errors_item(conditions: Conditions, shape: Shape, activation: str, dtype: torch.dtype) -> Item:
    def measure() -> tuple[list[Measurement], dict]:
        errors = relative_errors(Problem(shape, activation, conditions.device, dtype))
        limit = LIMITS[dtype] if conditions.dry or dtype != torch.float32 else GPU_LIMIT
        # NaN is not below the limit either.
        bad = {name: error for name, error in errors.items() if not error <= limit}
        if bad:
            raise ValueError(f"relative errors above {limit}: {bad}")
        prefix = f"{shape} {activation}, relative error of "
        return [value_row(prefix + name, [error], "") for name, error in errors.items()], {}

    return measure


def _tests_item(conditions: Conditions, name: str) -> Item:
    def run_tests() -> tuple[list[Measurement], dict]:
        if importlib.util.find_spec("pytest") is None:
            raise ImportError("pytest is not installed")
        # Without plugins that warn when they load or that end long tests.
        command = [sys.executable, "-m", "pytest", "-q", f"tests/execution/{name}"]
        command += [part for plugin in ("benchmark", "timeout", "cacheprovider") for part in ("-p", f"no:{plugin}")]
        command += ["--collect-only"] if conditions.dry else []
        environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), environment.get("PYTHONPATH", "")])
        process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        last = (process.stdout.strip().splitlines() or [""])[-1]
        if process.returncode:
            raise RuntimeError(f"{last}\n{process.stdout[-3000:]}{process.stderr[-1000:]}")
        return [], {"pytest": last}

    return run_tests
