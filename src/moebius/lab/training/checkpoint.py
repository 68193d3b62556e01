"""Everything that a run needs to go on as if it had never stopped, in one file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from moebius.kit.errors import StudyError, TrainingError
from moebius.kit.files import atomic_path
from moebius.storage.tensors import put_tensors, stored_tensors

# Errors from reading a file that is no checkpoint, or the checkpoint of another model.
_DAMAGE = (SafetensorError, RuntimeError, KeyError, TypeError, ValueError, AttributeError, OSError)


@dataclass
class Progress:
    """How far a run is. Holds no times: two runs with the same steps on one machine have the same bits.

    Arguments:
        epoch: finished epochs.
        step: finished steps of all epochs.
        batch: finished steps of the epoch under way.
        correct: rows of the epoch under way that were classified right, each before its update.
        rows: rows of the epoch under way.
        terms: sums over those rows of the objective's terms, and of the total under "loss".
        metrics: one entry per finished epoch.
        best: the epoch (from 1) with the best validation accuracy, if rows are held out.
    """

    epoch: int = 0
    step: int = 0
    batch: int = 0
    correct: int = 0
    rows: int = 0
    terms: dict[str, float] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    best: int | None = None


def save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write weights, optimizer state, random state and progress; a write that fails leaves the old file."""
    tensors = {f"model/{name}": value for name, value in stored_tensors(model).items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = torch.as_tensor(value)
    tensors["random/cpu"] = torch.get_rng_state()
    if _is_on_gpu(model):
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    _write(path, tensors, {"progress": asdict(progress)})


def restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Put a checkpoint's state into model, optimizer and random generators; None when there is no checkpoint.

    Raises:
        StudyError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        tensors, metadata = _read(path)
        progress, random_state = Progress(**metadata["progress"]), tensors["random/cpu"]
        put_tensors(model, {n.removeprefix("model/"): v for n, v in tensors.items() if n.startswith("model/")})
    except _DAMAGE as error:
        raise _damage_error(path, error) from None
    for name, parameter in model.named_parameters():
        prefix = f"optimizer/{name}/"
        for key, value in tensors.items():
            if key.startswith(prefix):
                optimizer.state[parameter][key.removeprefix(prefix)] = _optimizer_value(parameter, value)
    torch.set_rng_state(random_state)
    if _is_on_gpu(model) and "random/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random/cuda"])
    return progress


def save_cohort(
    path: Path,
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    progress: Sequence[Progress],
    failures: Mapping[int, TrainingError],
) -> None:
    """Write the state of the runs of a cohort, in one file.

    Arguments:
        path: of the file.
        parameters: of all runs, (S, …), by name.
        optimizer: of these parameters.
        progress: of each run.
        failures: run → the error that ended it.
    """
    tensors = {f"model/{name}": value for name, value in parameters.items()}
    for name, value in parameters.items():
        for key, state in optimizer.state.get(value, {}).items():
            tensors[f"optimizer/{name}/{key}"] = torch.as_tensor(state)
    messages = {run: [error.message, error.fix] for run, error in failures.items()}
    # One entry: safetensors writes several in any order, and files of equal cohorts have equal bits.
    _write(path, tensors, {"cohort": {"progress": [asdict(each) for each in progress], "failures": messages}})


def restore_cohort(
    path: Path, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> tuple[list[Progress], dict[int, TrainingError]] | None:
    """Put what `save_cohort` wrote into parameters and optimizer; each run's progress and the failures, or None.

    Raises:
        StudyError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        tensors, metadata = _read(path)
        # Older checkpoints call a cohort a stack.
        cohort = metadata["cohort"] if "cohort" in metadata else metadata["stack"]
        progress = [Progress(**each) for each in cohort["progress"]]
        failures = {int(run): TrainingError(*message) for run, message in cohort["failures"].items()}
        with torch.no_grad():
            for name, value in parameters.items():
                value.copy_(tensors[f"model/{name}"])
    except _DAMAGE as error:
        raise _damage_error(path, error) from None
    for name, value in parameters.items():
        prefix = f"optimizer/{name}/"
        for key, state in tensors.items():
            if key.startswith(prefix):
                optimizer.state[value][key.removeprefix(prefix)] = _optimizer_value(value, state)
    return progress, failures


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the weights alone: row-major and on the CPU, so that the bits do not depend on layout and device."""
    with atomic_path(path) as temporary:
        save_file(stored_tensors(model), temporary)


def restore_weights(path: Path, model: nn.Module) -> None:
    """Put weights that `save_weights` wrote into the model.

    Raises:
        StudyError: the file is missing or damaged.
    """
    try:
        put_tensors(model, load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise _damage_error(path, error) from None


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, {name: json.dumps(value) for name, value in metadata.items()})


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return tensors, {name: json.loads(value) for name, value in file.metadata().items()}


def _damage_error(path: Path, error: Exception) -> StudyError:
    fix = f"mv {path.parent} {path.parent}.damaged    # the run then starts again"
    return StudyError(f"{path}: the checkpoint cannot be read ({error})", fix)


def _is_on_gpu(model: nn.Module) -> bool:
    return any(parameter.is_cuda for parameter in model.parameters())


def _optimizer_value(parameter: Tensor, value: Tensor) -> Tensor:
    """Optimizer state as torch would have made it: moments in the parameter's layout and on its device."""
    if value.shape != parameter.shape:
        # torch's fused optimizers keep the step count beside the parameters.
        return value.to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
