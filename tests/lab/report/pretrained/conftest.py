"""Studies whose experts were trained before the gate, as `moebius run` leaves them, drawn with numpy."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from moebius.lab.diagnostics import Load
from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.report.source import SCHEMA

Maker = Callable[..., Path]
CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PAIRS = [(0, 8), (1, 9), (2, 6), (3, 5), (4, 7), (0, 9), (1, 8), (2, 7), (3, 6), (4, 5)]
ARTIFICIAL = (0, 1, 8, 9)


def write_pretrained(
    out: Path, name: str, stages: list[dict[str, Any]], runs: list[dict[str, Any]], rows: Mapping[str, int]
) -> Path:
    """study.json and results.json of a study whose experts were trained first."""
    variants = list(dict.fromkeys(run["variant"] for run in runs))
    data: dict[str, Any] = {"fingerprint": "0f1e2d", "classes": CIFAR, "domains": ["cifar10"]}
    data |= {f"{split}_rows": count for split, count in rows.items()}
    recipe = {"name": name, "title": name, "variants": {variant: {} for variant in variants}, "report": {}}
    (out / "study.json").write_text(json.dumps({"schema": SCHEMA, "study": name, "recipe": recipe, "data": data}))
    results = {"schema": SCHEMA, "study": name, "runs": runs, "stages": stages}
    (out / "results.json").write_text(json.dumps(results))
    return out


def stage_of(name: str, seed: int, classes: Sequence[int], groups: Any = None, best: float = 0.9) -> dict[str, Any]:
    """A stage whose validation accuracy grows and then flattens."""
    generator = np.random.default_rng([seed, len(name), *classes])
    best, epochs = best + float(generator.normal(0, 0.004)), int(generator.integers(12, 26))
    curve = [best - 0.25 * 0.75**epoch + float(generator.normal(0, 0.006)) for epoch in range(1, epochs + 1)]
    kept = int(np.argmax(curve))
    lines = [
        {
            "epoch": number,
            "train": {"accuracy": value - 0.01, "loss": 1 - value, "terms": {"cross_entropy": 1 - value}},
            "test": {"accuracy": value - 0.003, "loss": 1 - value},
            "validation": {"accuracy": value, "loss": 1 - value},
        }
        for number, value in enumerate(curve, 1)
    ]
    accuracy = {"train": curve[kept] - 0.01, "validation": curve[kept], "test": curve[kept] - 0.003}
    return {
        "stage": name,
        "seed": seed,
        "epoch": kept + 1,
        "accuracy": accuracy,
        "classes": [CIFAR[c] for c in classes],
        "groups": groups,
        "rows": {"train": 4500 * len(classes), "validation": 500 * len(classes), "test": 1000 * len(classes)},
        "seconds": 61.5 * len(classes),
        "parameters": 309290,
        "epochs": lines,
    }


def expert_alone(
    paths: Sequence[str], name: str | None, classes: Sequence[int] | None, right: np.ndarray, label: np.ndarray
) -> dict[str, Any]:
    """What results.json says of an expert that classifies these rows of `label` right."""
    own = np.isin(label, range(10) if classes is None else classes)
    return {
        "paths": list(paths),
        "name": name,
        "classes": None if classes is None else [CIFAR[c] for c in classes],
        "frozen": name is not None,
        "accuracy": float(right.mean()),
        "own": None if classes is None else float(right[own].mean()),
        "outside": None if classes is None else float(right[~own].mean()),
        "confidence": {"own": 0.96, "outside": None if classes is None else 0.87},
        "validation_accuracy": float(right.mean()) + 0.002,
        "by_class": [float(right[label == c].mean()) for c in range(10)],
    }


def pretrained_run(
    out: Path, variant: str, seed: int, tables: Mapping[str, Mapping[str, Any]], gates: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """One run's files and its entry: of each split the labels, whether they were predicted right, and gate weights."""
    entry: dict[str, Any] = {"variant": variant, "seed": seed, "trained": True, "cached": False, "parameters": 309290}
    entry |= {"accuracy": {}, "loss": {}, "seconds": 93.0}
    entry["gates"] = {
        gate: {"experts": weights.shape[1], "active_experts": {split: float(weights.shape[1]) for split in tables}}
        for gate, weights in gates["test"].items()
    }
    frames = []
    for split, table in tables.items():
        label, right = table["label"], table["right"]
        columns: dict[str, Any] = {"split": split, "row": np.arange(len(label)), "label": label}
        columns |= {"prediction": np.where(right, label, (label + 1) % 10), "domain": 0}
        columns |= {"probability": 0.5, "loss": 1 - right}
        for gate, weights in gates[split].items():
            columns |= {f"{gate}_{e}": column for e, column in enumerate(weights.T.astype(np.float32))}
        entry["accuracy"][split], entry["loss"][split] = float(right.mean()), float(2 - right.mean())
        frames.append(pd.DataFrame(columns))
    loads = Load.of(RoutedRows(torch.tensor(gates["test"]["gate"])))
    summary = {"load": loads["load"].tolist(), "importance": loads["importance"].tolist()}
    summary |= {"entropy": 0.7, "marginal_entropy": 1.2}
    epochs = range(1, 10) if more.get("trained", True) else [0]
    entry["epochs"] = [
        {"epoch": epoch, "gates": {"gate": summary}}
        | {
            split: {"accuracy": entry["accuracy"][split] * (1 - 0.3 * 0.6**epoch * (epoch > 0)), "loss": 1.0}
            for split in tables
        }
        for epoch in epochs
    ]
    entry["epoch"] = epochs[-1]
    run = out / variant / f"seed-{seed}"
    run.mkdir(parents=True)
    pd.concat(frames, ignore_index=True).to_parquet(run / "routing.parquet")
    return entry | more


def draw_splits(generator: np.random.Generator, rows: Mapping[str, int], skill: float) -> dict[str, dict[str, Any]]:
    def draw(count: int) -> dict[str, Any]:
        return {"label": generator.integers(0, 10, count), "right": generator.random(count) < skill}

    return {split: draw(count) for split, count in rows.items()}


@pytest.fixture
def make_pairs(tmp_path: Path) -> Maker:
    """Ten pair experts under gates that are no distribution, uniform weights, and a single network."""

    def make(seeds: int = 2, folder: Path | None = None) -> Path:
        out, rows = folder or tmp_path / "pairs", {"train": 900, "test": 1000}
        stages, runs = [], []
        for seed in range(seeds):
            stages += [
                stage_of(f"pair-{a}-{b}", seed, (a, b), best=0.88 + 0.011 * place) for place, (a, b) in enumerate(PAIRS)
            ]
            generator = np.random.default_rng(seed)
            test = generator.integers(0, 10, rows["test"])
            knows = [np.isin(test, pair) & (generator.random(len(test)) < 0.94) for pair in PAIRS]
            pool = [
                expert_alone([f"experts.{e}"], f"pair-{a}-{b}", (a, b), knows[e], test)
                for e, (a, b) in enumerate(PAIRS)
            ]
            oracle = float(np.any(knows, 0).mean())
            for variant, skill in (("standard", 0.82), ("sparse", 0.78), ("uniform", 0.55), ("gate-alone", 0.81)):
                tables = draw_splits(generator, rows, skill)
                tables["test"]["label"] = test

                def weigh(label: np.ndarray, variant: str = variant, generator: Any = generator) -> np.ndarray:
                    if variant == "uniform":
                        return np.full((len(label), 10), 0.1)
                    if variant == "gate-alone":
                        return np.ones((len(label), 1))
                    is_known = np.stack([np.isin(label, pair) for pair in PAIRS], 1)
                    weights = np.where(is_known, 2.1, -0.6) + generator.normal(0, 0.5, is_known.shape)
                    weights = np.where(weights > 0, weights, np.expm1(np.minimum(weights, 0)))
                    return weights if variant == "standard" else np.maximum(weights, 0) * is_known

                gates = {split: {"gate": weigh(table["label"])} for split, table in tables.items()}
                more: dict[str, Any] = {"experts_alone": pool, "oracle": oracle, "cached": variant != "gate-alone"}
                if variant == "gate-alone":
                    network = expert_alone(["experts.0"], None, None, tables["test"]["right"], test)
                    more |= {"experts_alone": [network], "oracle": network["accuracy"]}
                more["trained"] = variant != "uniform"
                runs.append(pretrained_run(out, variant, seed, tables, gates, **more))
        return write_pretrained(out, "pairwise-cifar10", stages, runs, rows)

    return make


@pytest.fixture
def make_tree(tmp_path: Path) -> Maker:
    """A tree with a hard root over [base, branch expert] twice, the same with a soft root, and the base alone."""

    def make(seeds: int = 2, folder: Path | None = None) -> Path:
        out, rows = folder or tmp_path / "tree", {"train": 900, "test": 1000}
        natural = tuple(c for c in range(10) if c not in ARTIFICIAL)
        groups = [[CIFAR[c] for c in part] for part in (ARTIFICIAL, natural)]
        stages, runs = [], []
        for seed in range(seeds):
            generator = np.random.default_rng([seed, 4])
            stages += [
                stage_of("base", seed, range(10), best=0.78),
                stage_of("first-gate", seed, range(10), groups=groups, best=0.94),
                stage_of("artificial", seed, ARTIFICIAL, best=0.91),
                stage_of("natural", seed, natural, best=0.82),
            ]
            test = generator.integers(0, 10, rows["test"])
            base, own = generator.random(len(test)) < 0.78, generator.random(len(test)) < 0.87
            parts = {"artificial": ARTIFICIAL, "natural": natural}
            experts = {name: np.isin(test, classes) & own for name, classes in parts.items()}
            pool = [
                expert_alone(["experts.0.experts.0", "experts.1.experts.0"], "base", None, base, test),
                *(
                    expert_alone([f"experts.{e}.experts.1"], name, parts[name], experts[name], test)
                    for e, name in enumerate(parts)
                ),
            ]
            oracle = float((base | experts["artificial"] | experts["natural"]).mean())
            for variant, skill in (("base", 0.78), ("tree", 0.83), ("tree-soft", 0.835)):
                tables = draw_splits(generator, rows, skill)
                tables["test"]["label"] = test

                def weigh(label: np.ndarray, variant: str = variant, generator: Any = generator) -> dict[str, Any]:
                    if variant == "base":
                        return {"gate": np.ones((len(label), 1))}
                    chance = np.where(np.isin(label, ARTIFICIAL), 0.95, 0.06) + generator.normal(0, 0.03, len(label))
                    first = np.clip(chance, 0.01, 0.99)
                    if variant == "tree":
                        first = (generator.random(len(label)) < first).astype(float)
                    inner = [generator.dirichlet([2, 5], len(label)) for _ in range(2)]
                    if variant == "tree":
                        inner[0][first == 0], inner[1][first == 1] = np.nan, np.nan
                    inner_gates = {f"experts.{branch}.gate": weights for branch, weights in enumerate(inner)}
                    return {"gate": np.stack([first, 1 - first], 1), **inner_gates}

                gates = {split: weigh(table["label"]) for split, table in tables.items()}
                more: dict[str, Any] = {"experts_alone": pool, "oracle": oracle, "cached": variant == "tree"}
                if variant == "base":
                    more = {"experts_alone": [{**pool[0], "paths": ["experts.0"]}], "oracle": None, "trained": False}
                runs.append(pretrained_run(out, variant, seed, tables, gates, **more))
        return write_pretrained(out, "hierarchical-cifar10", stages, runs, rows)

    return make
