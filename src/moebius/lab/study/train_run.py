"""One run: train a variant at a seed in its folder and leave its files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from moebius.kit.files import atomic_path, read_json, write_json
from moebius.lab.data.select_rows import select_rows
from moebius.lab.data.split import Dataset
from moebius.lab.model.build import StageNetworks, build_mixture
from moebius.lab.study.entries import run_entry, stage_entry
from moebius.lab.study.folder_lock import folder_lock
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.study.stages import digest
from moebius.lab.study.study_file import SCHEMA
from moebius.lab.training.checkpoint import restore_weights, save_weights
from moebius.lab.training.evaluation import Evaluation
from moebius.lab.training.loop import Trainer
from moebius.lab.training.outcome import Event, Trained
from moebius.lab.training.settings import Settings
from moebius.layers.mixture import Mixture

# Seconds to wait for the lock of a worker of a killed study, which ends as soon as it notices that.
ORPHAN_SECONDS = 10.0


def result_path(out: Path, run: RunSpec) -> Path:
    """The file that exists when the run is finished."""
    return run.place(out) / "result.json"


def train_run(run: RunSpec, data: Dataset, out: Path, device: str, listen: Callable[[Event], None]) -> None:
    """Train to the end, from the last checkpoint if there is one, and write the run's files; `result.json` last."""
    path = result_path(out, run)
    folder = path.parent
    with folder_lock(folder / "state", wait=ORPHAN_SECONDS):
        if path.exists():
            return
        remove_leftovers(folder)
        remove_leftovers(folder / "state")
        settings = Settings.model_validate(run.training)
        rows = data if run.rows is None else select_rows(data, **run.rows)
        stages = StageNetworks(run.stages, lambda name, mixture: _load_weights(run.folders[name], mixture))

        def build() -> Mixture:
            return build_mixture(run.model, rows.facts, stages)

        def store(part: nn.Module, split: str) -> Path | None:
            return _outputs_path(run, stages, part, split)

        trainer = Trainer(build, rows, settings, run.draws, folder, device, listen, store)
        write_run(run, rows, out, trainer.train(), stages.sources)


def write_run(
    run: RunSpec, rows: Dataset, out: Path, trained: Trained, stage_names: Mapping[nn.Module, str] | None = None
) -> None:
    """Write a finished run's files; `result.json` last.

    Arguments:
        run: its description.
        rows: the data that it was trained on.
        out: the study's folder.
        trained: the outcome.
        stage_names: expert that a stage has trained → name of the stage.
    """
    path = result_path(out, run)
    folder = path.parent
    _write_model(folder, run, rows, trained)
    if run.rows is None:
        _write_routing(folder / "routing.parquet", {"train": trained.train, "test": trained.test})
        write_json(path, run_entry(folder, run, rows, trained, stage_names or {}))
    else:
        write_json(path, stage_entry(folder, run, rows, trained))


def _load_weights(folder: Path, mixture: Mixture) -> None:
    restore_weights(folder / "model.safetensors", mixture)


def _outputs_path(run: RunSpec, stages: StageNetworks, part: nn.Module, split: str) -> Path | None:
    """The file of a stage part's outputs for a split: in the stage's folder, for all models that use the part."""
    stage = stages.sources.get(part)
    if stage is None:
        return None
    # Which part of the stage it is, and with which options: two that differ may have equal texts.
    use = next(use for use, adapter in stages.adapters.items() if adapter is part)
    key = digest([use, str(part), split, run.training["precision"]])
    return run.folders[stage] / "outputs" / f"{key}.safetensors"


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a process that was killed while it wrote; the caller has locked the folder."""
    for leftover in folder.glob(".*.tmp*"):
        leftover.unlink(missing_ok=True)


def _write_model(folder: Path, run: RunSpec, data: Dataset, trained: Trained) -> None:
    save_weights(folder / "model.safetensors", trained.model)
    description = {
        "schema": SCHEMA,
        "model": run.model,
        "stages": run.stages,
        "facts": data.facts,
        "classes": list(data.classes),
        "domains": list(data.domains),
    }
    write_json(folder / "model.json", description)


def _write_routing(path: Path, splits: Mapping[str, Evaluation]) -> None:
    tables = []
    for split, rows in splits.items():
        count = len(rows.labels)
        columns: dict[str, Any] = {
            "split": pa.DictionaryArray.from_arrays(np.zeros(count, np.int8), [split]).cast(pa.string()),
            "row": np.arange(count, dtype=np.int32),
            "label": rows.labels.to(dtype=torch.int32).numpy(),
            "prediction": rows.predictions.to(dtype=torch.int32).numpy(),
            "domain": rows.domains.to(dtype=torch.int32).numpy(),
            "probability": rows.probabilities.float().numpy(),
            "loss": rows.losses.float().numpy(),
        }
        for gate, weights in rows.gates.items():
            for expert, column in enumerate(weights.float().unbind(1)):
                columns[f"gate[{gate}]_{expert}" if gate else f"gate_{expert}"] = column.numpy()
        tables.append(pa.table(columns))
    with atomic_path(path) as temporary:
        pq.write_table(pa.concat_tables(tables), temporary, compression="zstd")


def collect(out: Path, runs: Sequence[RunSpec]) -> list[dict[str, Any]]:
    """The entries of all finished runs, in the order of `runs`."""
    return [read_json(path) for run in runs if (path := result_path(out, run)).exists()]
