"""Mixtures beside gradient boosting, a random forest and an MLP of as many parameters, on real tables.

    python benchmarks/tables.py --out tables-benchmark      # all sets, 5 seeds; goes on where it was interrupted
    python benchmarks/tables.py --sets wine digits --seeds 2

Each seed splits the rows anew (60 % training, 15 % held out, 25 % test) and seeds the training. Nothing is tuned: the
networks share one learning rate and number of steps, and the held-out rows choose their epoch; the trees have
scikit-learn's defaults, and the held-out rows as further training rows. Writes `runs.csv` (a line a run, at once),
`means.csv`, `comparisons.csv` and `page.md`.
"""

import argparse
import csv
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from _compare import prepare_process
from _table_models import CONSTANT, NETWORKS, OURS, REFERENCES, TREES, fits, train_estimator, train_network
from _table_sets import READERS, MissingPackageError, TableSet, load_set
from scipy import stats
from sklearn.metrics import accuracy_score, log_loss, r2_score, root_mean_squared_error

MODELS = (*NETWORKS, *TREES, CONSTANT)
FIELDS = ("set", "model", "seed", "rows", "features", "parameters", "score", "error", "seconds")


def measure(data: TableSet, predictions: np.ndarray) -> tuple[float, float]:
    """Accuracy and log loss, or R² and root mean squared error in the targets' unit."""
    y = data.test.y.numpy()
    if data.classifies:
        probabilities = np.clip(predictions, 1e-15, 1)
        probabilities = probabilities / probabilities.sum(1, keepdims=True)
        loss = log_loss(y, probabilities, labels=np.arange(data.outputs))
        return float(accuracy_score(y, predictions.argmax(1))), float(loss)
    return float(r2_score(y, predictions)), data.spread * float(root_mean_squared_error(y, predictions))


def compare(runs: pd.DataFrame) -> pd.DataFrame:
    """Ours minus each reference in score, seed by seed, with intervals for resampled splits and Holm's correction.

    The splits of several seeds share rows, so that their differences are not independent: the variance of the mean is
    (1/n + test rows / training rows) s², for n seeds, with Student's t of n − 1 degrees of freedom.

    Reference: Nadeau, Bengio 2003, Inference for the Generalization Error, section 4; Holm 1979.
    """
    scores = runs.pivot_table(index=["set", "seed"], columns="model", values="score")
    rows = []
    for name, by_seed in scores.groupby(level="set", sort=False):
        for ours in OURS:
            for reference in REFERENCES:
                if not {ours, reference} <= {*by_seed.columns}:
                    continue
                difference = (by_seed[ours] - by_seed[reference]).dropna()
                if len(difference) < 2:
                    continue
                n, deviation = len(difference), float(np.std(difference, ddof=1))
                error = max(deviation, 1e-12) * np.sqrt(1 / n + 0.25 / 0.75)
                mean = float(np.mean(difference))
                half = error * stats.t.ppf(0.975, n - 1)
                p = 2 * stats.t.sf(abs(mean) / error, n - 1)
                rows.append((name, ours, reference, mean, mean - half, mean + half, p))
    table = pd.DataFrame(rows, columns=["set", "model", "reference", "difference", "low", "high", "p"])
    order = np.argsort(table["p"].to_numpy())
    adjusted = np.maximum.accumulate(table["p"].to_numpy()[order] * np.arange(len(table), 0, -1)).clip(max=1)
    table.loc[table.index[order], "holm"] = adjusted
    return table


def page(runs: pd.DataFrame, comparisons: pd.DataFrame) -> str:
    """The tables of results as Markdown."""
    models = [name for name in MODELS if name in set(runs["model"])]
    lines = ["| set | rows | " + " | ".join(models) + " |", "| --- " * (len(models) + 2) + "|"]
    for metric in ("score", "error", "seconds"):
        lines += ["", f"{metric}:", "", *lines[:2]] if metric != "score" else []
        for name in dict.fromkeys(runs["set"]):
            part = runs[runs["set"] == name]
            means = part.groupby("model")[metric].mean()
            spread = part.groupby("model")[metric].std(ddof=1)
            cells = [f"{means[m]:.3f} ± {spread[m]:.3f}" if m in means else "–" for m in models]
            lines.append(f"| {name} | {part['rows'].iloc[0]:,} | " + " | ".join(cells) + " |")
    lines += ["", "| set | ours | reference | difference | 95 % interval | Holm p |", "| --- " * 6 + "|"]
    for row in comparisons.itertuples():
        values = f"{row.difference:+.3f} | [{row.low:+.3f}, {row.high:+.3f}] | {row.holm:.2g}"
        lines.append(f"| {row.set} | {row.model} | {row.reference} | {values} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("tables-benchmark"), help="folder of the results")
    parser.add_argument("--sets", nargs="+", choices=[*READERS], default=[*READERS])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=12_000, help="most rows of a set, drawn by the seed")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    prepare_process(arguments.threads, untuned=False)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "runs.csv"
    finished = set()
    if path.exists():
        finished = {*pd.read_csv(path)[["set", "model", "seed"]].itertuples(index=False, name=None)}
    else:
        path.write_text(",".join(FIELDS) + "\n")
    for name in arguments.sets:
        for seed in range(arguments.seeds):
            try:
                data = load_set(name, seed, arguments.rows)
            except MissingPackageError as error:
                print(f"{name}: left out, its package is not installed: {error}")
                break
            for model in arguments.models:
                if (name, model, seed) in finished or not fits(model, data):
                    continue
                started = time.perf_counter()
                train = train_network if model in NETWORKS else train_estimator
                predictions, parameters = train(model, data, seed)
                seconds = time.perf_counter() - started
                score, error = measure(data, predictions)
                rows = len(data.train.y) + len(data.validation.y) + len(data.test.y)
                values = (name, model, seed, rows, data.features, parameters, score, error, round(seconds, 3))
                with path.open("a") as file:
                    csv.writer(file).writerow(values)
                print(f"{name:<14} {model:<18} seed {seed}: {score:.4f} {error:.4f} in {seconds:.1f} s", flush=True)
    runs = pd.read_csv(path)
    if runs.empty:
        raise SystemExit("no runs: none of these sets is installed")
    comparisons = compare(runs)
    comparisons.to_csv(arguments.out / "comparisons.csv", index=False)
    runs.groupby(["set", "model"], sort=False)[["score", "error", "seconds", "parameters"]].agg(["mean", "std"]).to_csv(
        arguments.out / "means.csv"
    )
    (arguments.out / "page.md").write_text(page(runs, comparisons), encoding="utf-8")
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
    main()
