"""The models that are compared: variants of studies with their runs, and single runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moebius.kit.errors import ArgumentError, DamagedFileError, MoebiusError, StudyError
from moebius.kit.registry import did_you_mean
from moebius.lab.documents import ResultsFile, RunEntry, StudyFile, read_document
from moebius.lab.model.cost import multiply_adds
from moebius.lab.predict import load_run
from moebius.lab.predict.forward import computable
from moebius.lab.statistics.interval import Estimate, interval


@dataclass(frozen=True)
class Model:
    """A variant of a study, or one run of it.

    Arguments:
        name: unlike that of any other model.
        study: folder of the study.
        variant: its name in the study.
        runs: seed → content of the run's result.json.
        about: content of study.json.
        single: whether one run of several was named.
    """

    name: str
    study: Path
    variant: str
    runs: Mapping[int, Mapping[str, Any]]
    about: Mapping[str, Any]
    single: bool = False

    @property
    def score_name(self) -> str:
        """Of the task."""
        return str((self.about.get("task") or {}).get("score") or "accuracy")

    @property
    def fingerprint(self) -> str:
        """Of the data."""
        return str((self.about.get("data") or {}).get("fingerprint"))

    def names(self, key: str) -> tuple[str, ...]:
        """Names of the "classes" or the "domains" of the data."""
        return tuple(str(name) for name in (self.about.get("data") or {}).get(key) or ())

    def folder(self, seed: int) -> Path:
        """Of a run."""
        return self.study / self.variant / f"seed-{seed}"

    def score_by_seed(self) -> dict[int, float]:
        """The test score of each run."""
        return {seed: self._test_score(seed) for seed in self.runs}

    def _test_score(self, seed: int) -> float:
        values = self.runs[seed].get(self.score_name)
        score = values.get("test") if isinstance(values, Mapping) else None
        if score is None:
            raise DamagedFileError(self.folder(seed) / "result.json", f"it has no {self.score_name} of the test rows")
        return float(score)

    @property
    def score(self) -> Estimate:
        """Of the test rows, over seeds."""
        return interval(list(self.score_by_seed().values()))

    @property
    def parameters(self) -> int | None:
        """Number of parameters."""
        return next(iter(self.runs.values())).get("parameters")

    @property
    def seconds(self) -> float | None:
        """Mean time of training and evaluation."""
        seconds = [run["seconds"] for run in self.runs.values() if run.get("seconds") is not None]
        return interval(seconds).mean if seconds else None

    @property
    def experts_run(self) -> str | None:
        """Mean number of experts that run for a test row, of how many, at the first gate; None without several."""
        gates = next(iter(self.runs.values())).get("gates") or {}
        first = next(iter(gates.values()), None)
        if first is None or first["experts"] == 1:
            return None
        active = interval([next(iter(run["gates"].values()))["active_experts"]["test"] for run in self.runs.values()])
        return f"{active.mean:.2g} of {first['experts']}"

    def multiply_adds(self) -> float | None:
        """Per row, as the study has measured it, else of random rows; None where the model cannot be loaded here."""
        path = self.study / "results.json"
        costs = read_document(path, ResultsFile).get("costs") or {} if path.is_file() else {}
        as_trained = costs.get(self.variant, {}).get("as_trained", {})
        if "multiply_adds" in as_trained:
            return as_trained["multiply_adds"]
        try:
            run = self.folder(min(self.runs))
            model, data = load_run(run)
            with computable(run):
                return float(multiply_adds(model, data["facts"]))
        except MoebiusError:  # a kind that only a plugin knows
            return None


def find_models(folders: Sequence[str | Path], baseline: str | None = None) -> list[Model]:
    """The models that folders name: DIR/VARIANT/seed-N, DIR/VARIANT, or DIR for all variants of a study.

    Arguments:
        folders: of which a study's begins with its baseline.
        baseline: name of the model that is to be the first; None to leave the order.

    Raises:
        StudyError: a folder holds no finished run.
        ArgumentError: fewer than two models are named, or none is called like the baseline.
    """
    models: dict[tuple[Path, str, tuple[int, ...]], Model] = {}
    for folder in map(Path, folders):
        for model in _models_of(folder):
            models.setdefault((model.study.resolve(), model.variant, tuple(model.runs)), model)
    if len(models) < 2:
        names = [str(folder) for folder in folders]
        fix = "moebius compare runs/quickstart    # all of its variants"
        raise ArgumentError("RUN", "needs at least two models", names, fix)
    named = list(_name_apart(models.values()))
    if baseline is not None and all(model.name != baseline for model in named):
        names = [model.name for model in named]
        raise ArgumentError("baseline", "no model is called so", baseline, did_you_mean(baseline, names))
    return sorted(named, key=lambda model: model.name != baseline) if baseline is not None else named


def _models_of(folder: Path) -> list[Model]:
    if (folder / "result.json").is_file():
        run = _read_run(folder)
        variant, seed = str(run.get("variant")), run.get("seed")
        if seed is None or "variant" not in run:
            rule = f"{folder}: is a stage, whose rows are its own"
            raise StudyError(rule, f"{folder.parent.parent.parent}    # all variants of the study")
        name = f"{variant}/seed-{seed}"
        return [Model(name, folder.parent.parent, variant, {seed: run}, _read_about(folder.parent.parent), True)]
    if (folder / "study.json").is_file():
        about = _read_about(folder)
        recipe = about.get("recipe") or {}
        variants = sorted(recipe.get("variants") or (), key=lambda name: name != recipe.get("baseline"))
        chosen = _chosen_points(folder)
        finished = [(name, _variant(folder / chosen.get(name, name), about)) for name in variants]
        models = [replace(model, name=name) for name, model in finished if model is not None]
    else:
        about = _read_about(folder.parent) if (folder.parent / "study.json").is_file() else {}
        model = _variant(folder, about)
        models = [] if model is None else [model]
    if not models:
        rule = f"{folder}: holds no finished run of a variant"
        raise StudyError(rule, "the folder that `moebius run` named, or DIR/VARIANT, or DIR/VARIANT/seed-N")
    return models


def _chosen_points(study: Path) -> Mapping[str, str]:
    """Variant → the folder of its point that a sweep has chosen."""
    path = study / "results.json"
    return (read_document(path, ResultsFile).get("chosen") or {}) if path.is_file() else {}


def _variant(folder: Path, about: Mapping[str, Any]) -> Model | None:
    seeds = {path.parent: path.parent.name.removeprefix("seed-") for path in folder.glob("seed-*/result.json")}
    # A damaged run that was moved aside is no run: seed-1.damaged.
    numbers = {run: int(seed) for run, seed in seeds.items() if seed.isdecimal()}
    runs = {run["seed"]: run for run in map(_read_run, sorted(numbers, key=numbers.__getitem__))}
    return Model(folder.name, folder.parent, folder.name, runs, about) if runs else None


def _read_run(folder: Path) -> dict[str, Any]:
    return read_document(folder / "result.json", RunEntry)


def _read_about(study: Path) -> dict[str, Any]:
    path = study / "study.json"
    if not path.is_file():
        fix = "keep study.json beside the folders of the variants"
        raise StudyError(f"{path}: there is no such file, and it tells the data of the run", fix)
    return read_document(path, StudyFile)


def _name_apart(models: Iterable[Model]) -> Iterable[Model]:
    """The models with the names of their studies before equal names."""
    models = list(models)
    names = [model.name for model in models]
    for model in models:
        if names.count(model.name) == 1:
            yield model
        else:
            yield replace(model, name=f"{model.study.name}/{model.name}")
