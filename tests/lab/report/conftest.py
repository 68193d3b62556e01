"""Small studies as `moebius run` leaves them, drawn with numpy: what a report is made from, without training."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from moebius.lab.diagnostics import Entropy, Load
from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.report import build
from moebius.lab.report.gate_names import expert_path, gate_name
from moebius.lab.report.source import SCHEMA

Maker = Callable[..., Path]
NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


class Page(HTMLParser):
    """Ids, links, headings and pictures of a page; fails on a tag that closes another."""

    VOID = ("meta", "br", "img", "link", "hr")

    def __init__(self, text: str):
        super().__init__()
        self.open, self.ids, self.links, self.labels, self.sources = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.open += [] if tag in self.VOID else [tag]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        self.sources += [attributes["src"]] if "src" in attributes else []
        if tag == "svg":
            self.labels.append(attributes["aria-label"])

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def draw_rows(generator: np.random.Generator, rows: int, domains: int, classes: int, experts: int, skill: float):
    """Labels, domains, gate weights that follow the domain, and predictions that are right as often as `skill` says."""
    domain = generator.integers(0, domains, rows)
    per_domain = classes // domains
    label = domain * per_domain + generator.integers(0, per_domain, rows)
    scores = 2.0 * (np.arange(experts)[None] % domains == domain[:, None]) + generator.normal(0, 1.5, (rows, experts))
    weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    wrong = domain * per_domain + generator.integers(0, per_domain, rows)
    easy = np.clip(skill + 0.25 * (domain == 0), 0, 1)
    prediction = np.where(generator.random(rows) < easy, label, wrong)
    return label, domain, weights.astype(np.float32), prediction


def write_run(folder: Path, study: Mapping[str, Any], variant: str, experts: int, seed: int) -> dict[str, Any]:
    """One run's files; returns its entry of results.json."""
    generator = np.random.default_rng([seed, len(variant), experts])
    classes, domains, nested = study["classes"], study["domains"], variant in study["nested"]
    names = domains if len(domains) > 1 else ["all"]
    base = 0.4 + 0.02 * experts**0.5 + generator.normal(0, 0.006)
    frames, entry = [], {"variant": variant, "seed": seed}
    entry |= {"accuracy": {}, "accuracy_by_domain": {}, "loss": {}}
    first, inner_gate = study["gates"][0], gate_name(expert_path(study["gates"][0], 0))
    widths = {**dict.fromkeys(study["gates"], experts), **({inner_gate: 3} if nested else {})}
    entry["gates"] = {
        gate: {"experts": width, "active_experts": {"train": width, "test": width}} for gate, width in widths.items()
    }
    for split, skill in (("train", base + 0.1), ("test", base)):
        rows = study["rows"][split]
        label, domain, weights, prediction = draw_rows(generator, rows, len(domains), len(classes), experts, skill)
        right = label == prediction
        entry["accuracy"][split] = float(right.mean())
        entry["accuracy_by_domain"][split] = {n: float(right[domain == d].mean()) for d, n in enumerate(names)}
        entry["loss"][split] = float(2 - right.mean())
        columns: dict[str, Any] = {"split": split, "row": np.arange(rows), "label": label, "prediction": prediction}
        columns |= {"domain": domain, "probability": generator.random(rows), "loss": generator.random(rows)}
        columns |= {f"{gate}_{e}": weights[:, e] for gate in study["gates"] for e in range(experts)}
        if nested:
            inner = generator.dirichlet([0.3, 0.3, 0.3], rows).astype(np.float32)
            weighed = weights.argmax(1) == 0
            inner[~weighed] = np.nan
            columns |= {f"{inner_gate}_{e}": inner[:, e] for e in range(3)}
        frames.append(pd.DataFrame(columns))
    test_weights = frames[1][[f"{first}_{e}" for e in range(experts)]].to_numpy()
    entry["epochs"] = [
        epoch_line(epoch, entry, test_weights, generator, names) for epoch in range(1, study["epochs"] + 1)
    ]
    entry |= {"seconds": 41.5 + seed, "images_per_second": 41234.5, "parameters": 20500 * experts}
    run = folder / variant / f"seed-{seed}"
    run.mkdir(parents=True)
    pd.concat(frames, ignore_index=True).to_parquet(run / "routing.parquet")
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in entry["epochs"]))
    return entry


def epoch_line(epoch: int, entry: Mapping[str, Any], weights: np.ndarray, generator: np.random.Generator, names):
    grown = 1 - 0.45 * 0.7**epoch

    def measures(split: str) -> dict[str, Any]:
        accuracy = entry["accuracy"][split] * grown + float(generator.normal(0, 0.004))
        return {"accuracy": accuracy, "loss": 2 - accuracy}

    rows = RoutedRows(torch.tensor(weights))
    loads, entropies = Load.of(rows), Entropy.of(rows)
    gate = {
        "entropy": float(entropies["row"].item() * (0.6 + 0.6 * 0.7**epoch)),
        "marginal_entropy": float(entropies["marginal"].item()),
        "load": loads["load"].tolist(),
        "importance": loads["importance"].tolist(),
    }
    train = measures("train")
    by_domain = {name: measures("test")["accuracy"] for name in names}
    return {
        "epoch": epoch,
        "train": {**train, "terms": {"cross_entropy": train["loss"]}},
        "test": {**measures("test"), "accuracy_by_domain": by_domain},
        "gates": {name: gate for name in entry["gates"] if "experts" not in name},
    }


@pytest.fixture
def make_study(tmp_path: Path) -> Maker:
    """Call it with variants (name → number of experts) to get a study's folder."""

    def make(
        variants: Mapping[str, int] | None = None,
        seeds: int = 2,
        epochs: int = 4,
        domains: Sequence[str] = ("mnist", "cifar10"),
        classes: int = 20,
        rows: Mapping[str, int] | None = None,
        nested: Sequence[str] = (),
        report: Mapping[str, Any] | None = None,
        folder: Path | None = None,
        gates: Sequence[str] = ("gate",),
    ) -> Path:
        variants = variants or {"single": 1, "linear": 2, "hidden": 3}
        out = folder or tmp_path / "study"
        rows = rows or {"train": 900, "test": 500}
        per_domain = classes // len(domains)
        names = [f"{domain} {c}" for domain in domains for c in range(per_domain)]
        facts = {
            "classes": names,
            "domains": list(domains),
            "rows": rows,
            "epochs": epochs,
            "nested": nested,
            "gates": gates,
        }
        runs = [
            write_run(out, facts, name, experts, seed) for name, experts in variants.items() for seed in range(seeds)
        ]
        recipe: dict[str, Any] = {"name": "linear-experts", "title": "Can a learned gate beat the hand-made one?"}
        recipe |= {"description": "Four models on two data sets.", "variants": {name: {} for name in variants}}
        recipe["report"] = dict(report or {})
        data = {"fingerprint": "0f1e2d", "classes": names, "domains": list(domains)}
        data |= {f"{split}_rows": count for split, count in rows.items()}
        about = {"schema": SCHEMA, "study": "linear-experts", "recipe": recipe, "data": data}
        about |= {
            "versions": {"moebius": "0.1.0", "torch": "2.13.0"},
            "hardware": {"cpu": "two cores", "device": "cpu"},
        }
        (out / "study.json").write_text(json.dumps(about))
        (out / "results.json").write_text(json.dumps({"schema": SCHEMA, "study": "linear-experts", "runs": runs}))
        return out

    return make


@pytest.fixture
def holds_together() -> Callable[[Path], str]:
    """Call it with a study's folder to build its page, check all that can be checked of any page, and get its text."""

    def check(out: Path) -> str:
        path = build(out)
        text = path.read_text(encoding="utf-8")
        page = Page(text)
        assert path == out / "report.html"
        assert len(set(page.ids)) == len(page.ids)
        assert all(page.labels)
        inside = [link.removeprefix("#") for link in page.links if link.startswith("#")]
        assert set(inside) <= set(page.ids)
        beside = [link for link in page.links if not link.startswith("#")]
        assert beside
        assert all((out / link).is_file() for link in beside)
        assert page.sources == []
        assert "<script" not in text
        assert set(re.findall(r"(?:https?:)?//[\w.]+[^\s\"'<)]*", text)) <= NAMESPACES
        for picture in (out / "figures").glob("*.svg"):
            assert ElementTree.parse(picture).getroot().tag.endswith("svg")
            with Image.open(picture.with_suffix(".png")) as image:
                assert min(image.size) > 100
        assert not list(out.rglob(".*"))
        return text

    return check
