"""One run: train a variant at a seed in its folder and leave its files."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from moebius.build import build_mixture
from moebius.data.split import Dataset
from moebius.diagnostics.activation import activation
from moebius.files import read_json, replacing, write_json
from moebius.study.lock import locked
from moebius.study.plan import SCHEMA, RunPlan
from moebius.training.checkpoint import save_weights
from moebius.training.evaluation import Evaluation
from moebius.training.loop import Event, Trained, Trainer
from moebius.training.settings import Settings

# How long to wait for a worker of a killed study that is about to notice that it is alone.
ORPHAN_SECONDS = 10.0


def result_path(out: Path, plan: RunPlan) -> Path:
    """The file whose presence says that the run is finished."""
    return out / plan.variant / f"seed-{plan.seed}" / "result.json"


def run_one(plan: RunPlan, data: Dataset, out: Path, device: str, listen: Callable[[Event], None]) -> None:
    """Train to the end, from the last checkpoint if there is one, and write the run's files; `result.json` last."""
    path = result_path(out, plan)
    folder = path.parent
    with locked(folder / "state", wait=ORPHAN_SECONDS):
        if path.exists():
            return
        remove_leftovers(folder)
        remove_leftovers(folder / "state")
        settings = Settings.from_plain(plan.training)
        trainer = Trainer(
            lambda: build_mixture(plan.model, data.facts), data, settings, plan.seed, folder, device, listen
        )
        trained = trainer.train()
        _write_model(folder, plan, data, trained)
        _write_routing(folder / "routing.parquet", {"train": trained.train, "test": trained.test})
        write_json(path, _result(folder, plan, data, trained))


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a process that was killed while it wrote; only who holds the folder may."""
    for leftover in folder.glob(".*.tmp*"):
        leftover.unlink(missing_ok=True)


def _write_model(folder: Path, plan: RunPlan, data: Dataset, trained: Trained) -> None:
    save_weights(folder / "model.safetensors", trained.model)
    description = {
        "schema": SCHEMA,
        "model": plan.model,
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
    with replacing(path) as temporary:
        pq.write_table(pa.concat_tables(tables), temporary, compression="zstd")


def _result(folder: Path, plan: RunPlan, data: Dataset, trained: Trained) -> dict[str, Any]:
    """The run's entry in results.json; docs/results-schema.md describes it."""
    reported = trained.metrics[trained.epoch - 1]
    timing = [json.loads(line) for line in (folder / "timing.jsonl").read_text().splitlines()]
    splits = {"train": trained.train, "test": trained.test}
    gates = {path: _rates(path, splits, data) for path in trained.test.gates}
    root = gates.pop("")
    return {
        "variant": plan.variant,
        "seed": plan.seed,
        "epoch": trained.epoch,
        "accuracy": {"train": reported["train"]["accuracy"], "test": trained.test.accuracy},
        "accuracy_by_domain": {name: rows.accuracy_by_domain(data.groups) for name, rows in splits.items()},
        "loss": {"train": reported["train"]["loss"], "test": trained.test.loss},
        **root,
        "active_experts": {split: rows.active_experts() for split, rows in splits.items()},
        "one_expert": _one_expert(trained.one_expert, data),
        "gates": gates,
        "epochs": trained.metrics,
        "seconds": sum(entry["seconds"] for entry in timing),
        "images_per_second": float(np.median([entry["images_per_second"] for entry in timing])),
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "experts": len(trained.model.experts),
        "precision": plan.training["precision"],
    }


def _one_expert(rows: Evaluation | None, data: Dataset) -> dict[str, Any] | None:
    """Test figures of the same model when exactly one expert runs for a row."""
    if rows is None:
        return None
    return {"accuracy": rows.accuracy, "loss": rows.loss, "accuracy_by_domain": rows.accuracy_by_domain(data.groups)}


def _rates(path: str, splits: Mapping[str, Evaluation], data: Dataset) -> dict[str, Any]:
    rates: dict[str, Any] = {"activation": {}, "activation_by_class": {}}
    for split, rows in splits.items():
        weights = rows.gates[path].numpy()
        asked = ~np.isnan(weights).any(1)
        for key, groups, names in (
            ("activation", rows.domains, data.groups),
            ("activation_by_class", rows.labels, data.classes),
        ):
            frame = activation(weights[asked], groups.numpy()[asked], names)
            rates[key][split] = {
                name: part.sort_values("expert")["rate"].tolist()
                for name, part in frame.groupby("group", sort=False, observed=True)
            }
    return rates


def collect(out: Path, plans: tuple[RunPlan, ...]) -> list[dict[str, Any]]:
    """The entries of all finished runs, in the plan's order."""
    return [read_json(path) for plan in plans if (path := result_path(out, plan)).exists()]
