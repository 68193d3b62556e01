"""Everything that runs need to go on as if they had never stopped, in one file."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from moebius.kit.commands import aside_ending, move_aside
from moebius.kit.errors import DamagedFileError, DivergedError, StudyError, TrainingError
from moebius.kit.files import atomic_path, remove_file, write_errors
from moebius.kit.seals import SEAL, check_seal
from moebius.lab.training.engine import Engine
from moebius.storage.tensors import put_tensors, stored_tensors

# Errors from reading a file that is no checkpoint, or the checkpoint of other models.
_DAMAGE = (SafetensorError, RuntimeError, KeyError, TypeError, ValueError, AttributeError, OSError)


@dataclass
class Progress:
    """How far a run is. Holds no times: two runs with the same steps on one machine have the same bits.

    Arguments:
        epoch: finished epochs.
        step: finished steps of all epochs.
        batch: finished steps of the epoch under way.
        rows: rows of the epoch under way.
        score: sum over those rows of the task's score, each before its update.
        terms: sums over those rows of the objective's terms, and of the total under "loss".
        metrics: one entry per finished epoch.
        best: the epoch (from 1) with the best validation accuracy, if rows are held out.
    """

    epoch: int = 0
    step: int = 0
    batch: int = 0
    rows: int = 0
    score: float | int = 0
    terms: dict[str, float] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    best: int | None = None


def save(
    path: Path,
    engine: Engine,
    optimizer: torch.optim.Optimizer,
    progress: Sequence[Progress],
    failures: Mapping[int, TrainingError],
) -> None:
    """Write weights, optimizer state, random state and progress; the checkpoint before is kept at `path_before`.

    A write that fails leaves the old files.

    Arguments:
        path: of the file.
        engine: with the models of the runs.
        optimizer: of its parameters.
        progress: of each run.
        failures: run → the error that ended it.
    """
    tensors = {f"model/{name}": value for name, value in engine.tensors().items()}
    for name, parameter in engine.parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = torch.as_tensor(value)
    tensors["random/cpu"] = torch.get_rng_state()
    if engine.device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    messages = {run: [error.message, error.fix] for run, error in failures.items()}
    # One entry: safetensors writes several in any order, and files of equal runs have equal bits.
    state = json.dumps({"digest": SEAL, "progress": [asdict(each) for each in progress], "failures": messages})
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path, seal=True, keep=path_before(path)) as temporary:
        save_file(stored, temporary, {"state": state})


def path_before(path: Path) -> Path:
    """Where the checkpoint before the last one is.

    Example:
        >>> path_before(Path("state/checkpoint.safetensors")).name
        'checkpoint.before.safetensors'
    """
    return path.with_name(f"{path.stem}.before{path.suffix}")


def remove(path: Path) -> None:
    """Remove a checkpoint and the one before, where they are."""
    remove_file(path)
    remove_file(path_before(path))


def restore(
    path: Path,
    engine: Engine,
    optimizer: torch.optim.Optimizer,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[list[Progress], dict[int, TrainingError]] | None:
    """Put a checkpoint's state into models, optimizer and random generators; None when there is no checkpoint.

    Where the last checkpoint is damaged, its file is moved aside, and the one before takes its place.

    Arguments:
        path: of the last checkpoint.
        engine, optimizer: receive the state.
        tell: receives a text where the last checkpoint is damaged.

    Returns:
        The progress of each run, and the errors of those that failed.

    Raises:
        StudyError: both files are damaged, or written by moebius 0.1 or for another model.
    """
    before = path_before(path)
    if not before.exists():
        return _restore(path, engine, optimizer) if path.exists() else None
    if not path.exists():  # a process has died between the two renames
        return _restore(before, engine, optimizer)
    try:
        return _restore(path, engine, optimizer)
    except StudyError as error:
        try:
            state = _restore(before, engine, optimizer)
        except StudyError:
            fix = f"{move_aside(path, before)}    # the run then starts again"
            raise StudyError(f"{error.message}, and so is the one before", fix) from None
        aside = path.with_name(path.name + aside_ending(path))
        with write_errors(path):
            path.replace(aside)
        tell(f"{error.message}; moved to {aside.name}, and the run goes on from the one before")
        return state


def _restore(
    path: Path, engine: Engine, optimizer: torch.optim.Optimizer
) -> tuple[list[Progress], dict[int, TrainingError]]:
    fix = f"{move_aside(path)}    # the run then starts again"
    try:
        check_seal(path)
        with safe_open(path, "pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        if "state" not in metadata and not {"progress", "cohort", "stack"}.isdisjoint(metadata):
            raise StudyError(f"{path}: is a checkpoint of moebius 0.1", fix)
        state = json.loads(metadata["state"])
        progress = [Progress(**each) for each in state["progress"]]
        failures: dict[int, TrainingError] = {
            int(run): DivergedError(*message) for run, message in state["failures"].items()
        }
        random_state = tensors["random/cpu"]
        engine.put_tensors({n.removeprefix("model/"): v for n, v in tensors.items() if n.startswith("model/")})
    except DamagedFileError as error:
        raise _damage_error(path, error.reason, fix) from None
    except _DAMAGE as error:
        raise _damage_error(path, error, fix) from None
    for name, parameter in engine.parameters.items():
        prefix = f"optimizer/{name}/"
        for key, value in tensors.items():
            if key.startswith(prefix):
                optimizer.state[parameter][key.removeprefix(prefix)] = _optimizer_value(parameter, value)
    torch.set_rng_state(random_state)
    if engine.device.type == "cuda" and "random/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random/cuda"])
    return progress, failures


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the weights alone: row-major and on the CPU, so that the bits do not depend on layout and device."""
    with atomic_path(path, seal=True) as temporary:
        save_file(stored_tensors(model), temporary, {"digest": SEAL})


def restore_weights(path: Path, model: nn.Module, fix: str | None = None) -> None:
    """Put weights that `save_weights` wrote into the model.

    Arguments:
        path: of the file.
        model: receives them.
        fix: of the error; None to begin the run again without its folder `state`.

    Raises:
        StudyError: the file is missing or damaged.
    """
    fix = fix or f"{move_aside(path.parent)}    # the run then starts again"
    try:
        check_seal(path)
        put_tensors(model, load_file(path))
    except DamagedFileError as error:
        raise _damage_error(path, error.reason, fix) from None
    except (SafetensorError, RuntimeError, OSError) as error:
        raise _damage_error(path, error, fix) from None


def _damage_error(path: Path, reason: Exception | str, fix: str) -> StudyError:
    return StudyError(f"{path}: the checkpoint cannot be read ({reason})", fix)


def _optimizer_value(parameter: Tensor, value: Tensor) -> Tensor:
    """Optimizer state as torch would have made it: moments in the parameter's layout and on its device."""
    if value.shape != parameter.shape:
        # torch's fused optimizers keep the step count beside the parameters.
        return value.to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
