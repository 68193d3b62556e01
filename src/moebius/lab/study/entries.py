"""The entries of results.json; docs/results-schema.md describes them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moebius.lab.data.split import Dataset
from moebius.lab.illnesses._illness import Finding
from moebius.lab.study.run_findings import run_findings
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.study.run_versions import read_versions
from moebius.lab.training.evaluation import Evaluation
from moebius.lab.training.gate_places import find_gates
from moebius.lab.training.outcome import Trained
from moebius.lab.training.timing import Timing


def run_entry(
    folder: Path,
    run: RunSpec,
    data: Dataset,
    trained: Trained,
    stage_names: Mapping[nn.Module, str],
    findings: Sequence[Finding] | None = None,
) -> dict[str, Any]:
    """The entry of a variant at a seed.

    Arguments:
        folder: of the run.
        run: its description.
        data: the rows.
        trained: the outcome.
        stage_names: expert that a stage has trained → name of the stage.
        findings: what its gates suffer from; None for what the outcome tells.
    """
    splits = {name: trained.evaluations[name] for name in ("train", "test") if name in trained.evaluations}
    score = trained.test.score_name
    findings = run_findings(data, trained) if findings is None else findings
    learned = {place.name: place.is_learned for place in find_gates(trained.model)}
    return {
        "variant": run.variant,
        "seed": run.seed,
        **_figures(folder, trained),
        f"{score}_by_domain": {name: rows.score_by_domain(data.groups) for name, rows in splits.items()},
        "one_expert": _one_expert(trained.one_expert, data),
        "experts_alone": _alone(trained, data, stage_names),
        "oracle": trained.oracle,
        "cached": trained.remembered,
        "trained": trained.epoch > 0,
        "gates": {
            gate: {
                "experts": weights.shape[1],
                "learned": learned.get(gate, True),
                "active_experts": {split: rows.active_experts(gate) for split, rows in splits.items()},
            }
            for gate, weights in trained.test.gates.items()
        },
        "findings": [dict(finding.to_dict()) for finding in findings],
        "precision": run.training["precision"],
        "versions": read_versions(folder),
    }


def stage_entry(folder: Path, run: RunSpec, data: Dataset, trained: Trained) -> dict[str, Any]:
    """The entry of a stage at a seed; all figures are for the rows that the stage selects, `data`."""
    assert run.rows is not None
    rows = {"train": data.train, "validation": data.validation, "test": data.test}
    present = sorted(set(data.test.labels.flatten().tolist())) if data.classes else []
    return {
        "stage": run.variant,
        "seed": run.seed,
        **_figures(folder, trained),
        "classes": [data.classes[label] for label in present if label >= 0],
        "groups": run.rows["groups"],
        **({"fold": list(run.rows["fold"])} if "fold" in run.rows else {}),
        "rows": {name: len(split) for name, split in rows.items() if split is not None},
        "precision": run.training["precision"],
        "versions": read_versions(folder),
    }


def _figures(folder: Path, trained: Trained) -> dict[str, Any]:
    timing = Timing(folder).entries()
    rates = [entry["images_per_second"] for entry in timing]
    splits = {"validation": trained.held_out, "test": trained.test}
    evaluated = {name: rows for name, rows in splits.items() if rows is not None}
    reported, score = trained.reported.get("train"), trained.test.score_name
    fitted = {} if reported is None else {"train": reported}
    names = (*trained.test.metrics, *trained.test.figures)
    return {
        "epoch": trained.epoch,
        score: {
            **{name: each[score] for name, each in fitted.items()},
            **{name: rows.score for name, rows in evaluated.items()},
        },
        **({"metrics": {split: _metrics(rows, names) for split, rows in evaluated.items()}} if names else {}),
        "loss": {
            **{name: each["loss"] for name, each in fitted.items()},
            **{name: rows.loss for name, rows in evaluated.items()},
        },
        "epochs": trained.metrics,
        "seconds": sum(entry["seconds"] for entry in timing) if timing else None,
        "images_per_second": float(np.median(rates)) if rates else None,
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
    }


def _metrics(rows: Evaluation, names: Sequence[str]) -> dict[str, float | None]:
    values = {name: rows.metric(name) for name in names}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _one_expert(rows: Evaluation | None, data: Dataset) -> dict[str, Any] | None:
    """Test figures of the same model when exactly one expert runs for a row."""
    if rows is None:
        return None
    return {
        rows.score_name: rows.score,
        "loss": rows.loss if math.isfinite(rows.loss) else None,
        f"{rows.score_name}_by_domain": rows.score_by_domain(data.groups),
    }


def _alone(trained: Trained, data: Dataset, stage_names: Mapping[nn.Module, str]) -> list[dict[str, Any]]:
    """Each expert by itself on all test rows: on the classes that it knows and on the others."""
    validation_scores = {expert.module: expert.score for expert in trained.alone_held_out}
    score, labels = trained.test.score_name, data.test.labels
    # Rows of one class each can be told apart by it; others are all as one.
    by_row = bool(data.classes) and labels.ndim == 1
    labels = labels if by_row else torch.zeros(len(data.test), dtype=torch.int64)
    entries = []
    for expert in trained.alone:
        scores, knows = expert.scores.double(), expert.knows_class(labels)
        confidence = expert.confidence.double().flatten(1).mean(1) if expert.confidence.ndim > 1 else expert.confidence
        entry = {
            "paths": list(expert.paths),
            "name": stage_names.get(expert.module),
            "classes": None if expert.classes is None else [data.classes[label] for label in expert.classes],
            "frozen": not any(parameter.requires_grad for parameter in expert.module.parameters()),
            score: expert.score,
            "own": _mean(scores, knows) if expert.classes is not None else None,
            "outside": _mean(scores, ~knows),
            "confidence": {"own": _mean(confidence, knows), "outside": _mean(confidence, ~knows)},
            f"validation_{score}": validation_scores.get(expert.module),
            "by_class": [_mean(scores, labels == label) for label in range(len(data.classes))] if by_row else [],
            "by_domain": [_mean(scores, data.test.domains.cpu() == place) for place in range(len(data.domains))],
        }
        entries.append(entry)
    return entries


def _mean(values: Tensor, mask: Tensor) -> float | None:
    """The mean of the values where the mask is true; None where it is so nowhere, and of values that are none."""
    mean = values[mask].double().mean().item() if mask.any() else math.nan
    return mean if math.isfinite(mean) else None
