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
from moebius.lab.study.plan import SCHEMA, RunSpec
from moebius.lab.study.stages import digest
from moebius.lab.training.checkpoint import restore_weights, save_weights
from moebius.lab.training.evaluation import Evaluation
from moebius.lab.training.loop import Trainer
from moebius.lab.training.outcome import Event, Trained
from moebius.lab.training.settings import Settings
from moebius.layers.mixture import Mixture

# How long to wait for a worker of a killed study that is about to notice that it is alone.
ORPHAN_SECONDS = 10.0


def result_path(out: Path, plan: RunSpec) -> Path:
    """The file whose presence says that the run is finished."""
    return plan.place(out) / "result.json"


def train_run(plan: RunSpec, data: Dataset, out: Path, device: str, listen: Callable[[Event], None]) -> None:
    """Train to the end, from the last checkpoint if there is one, and write the run's files; `result.json` last."""
    path = result_path(out, plan)
    folder = path.parent
    with folder_lock(folder / "state", wait=ORPHAN_SECONDS):
        if path.exists():
            return
        remove_leftovers(folder)
        remove_leftovers(folder / "state")
        settings = Settings.from_plain(plan.training)
        rows = data if plan.rows is None else select_rows(data, **plan.rows)
        stages = StageNetworks(plan.stages, lambda name, mixture: _fill(plan.folders[name], mixture))

        def build() -> Mixture:
            return build_mixture(plan.model, rows.facts, stages)

        def store(part: nn.Module, split: str) -> Path | None:
            return _outputs_path(plan, stages, part, split)

        trainer = Trainer(build, rows, settings, plan.draws, folder, device, listen, store)
        write_run(plan, rows, out, trainer.train(), stages.sources)


def write_run(
    plan: RunSpec, rows: Dataset, out: Path, trained: Trained, sources: Mapping[nn.Module, str] | None = None
) -> None:
    """Write a finished run's files; `result.json` last.

    Arguments:
        plan: of the run.
        rows: that it was trained on.
        out: the study's folder.
        trained: what came out.
        sources: experts that a stage has trained → the stage.
    """
    path = result_path(out, plan)
    folder = path.parent
    _write_model(folder, plan, rows, trained)
    if plan.rows is None:
        _write_routing(folder / "routing.parquet", {"train": trained.train, "test": trained.test})
        write_json(path, run_entry(folder, plan, rows, trained, sources or {}))
    else:
        write_json(path, stage_entry(folder, plan, rows, trained))


def _fill(folder: Path, mixture: Mixture) -> None:
    restore_weights(folder / "model.safetensors", mixture)


def _outputs_path(plan: RunSpec, stages: StageNetworks, part: nn.Module, split: str) -> Path | None:
    """Where what a stage's part says of a split is kept: beside the stage, for every model that uses it so."""
    stage = stages.sources.get(part)
    if stage is None:
        return None
    # Which part of the stage it is, and with which options: two that differ may look alike.
    used = next(use for use, adapter in stages.adapters.items() if adapter is part)
    key = digest([used, str(part), split, plan.training["precision"]])
    return plan.folders[stage] / "outputs" / f"{key}.safetensors"


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a process that was killed while it wrote; only who holds the folder may."""
    for leftover in folder.glob(".*.tmp*"):
        leftover.unlink(missing_ok=True)


def _write_model(folder: Path, plan: RunSpec, data: Dataset, trained: Trained) -> None:
    save_weights(folder / "model.safetensors", trained.model)
    description = {
        "schema": SCHEMA,
        "model": plan.model,
        "stages": plan.stages,
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


def collect(out: Path, plans: Sequence[RunSpec]) -> list[dict[str, Any]]:
    """The entries of all finished runs, in the plan's order."""
    return [read_json(path) for plan in plans if (path := result_path(out, plan)).exists()]
