"""All tables of a report, tidy: one observation per line."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from moebius.kit.files import atomic_path
from moebius.lab.diagnostics.interval import interval
from moebius.lab.report.frames import Frame, concatenate, make_frame
from moebius.lab.report.rows import ROOT, frames_of, read_rows
from moebius.lab.report.source import Study

SPLITS = ("train", "test")
COLUMNS: dict[str, tuple[str, ...]] = {
    "summary": ("variant", "measure", "split", "mean", "low", "high", "median", "seeds"),
    "epochs": ("variant", "seed", "epoch", "split", "measure", "value"),
    "gates": ("variant", "seed", "gate", "epoch", "measure", "expert", "value"),
    "accuracy_by_domain": ("variant", "seed", "split", "domain", "accuracy"),
    "activation": ("variant", "seed", "gate", "split", "by", "group", "expert", "rate"),
    "experts_alone": (
        "variant", "seed", "path", "name", "knows", "frozen", "accuracy", "validation_accuracy", "own", "outside",
        "confidence_own", "confidence_outside",
    ),
    "experts_alone_by_class": ("variant", "seed", "path", "class", "accuracy"),
}  # fmt: skip
STAGE_EPOCHS = ("stage", "seed", "epoch", "split", "measure", "value")


def tabulate(study: Study) -> Study:
    """The study with its tables: those of results.json, and those of the rows of every run that has them."""
    parts: dict[str, list[Frame]] = {name: [] for name in COLUMNS if name != "summary"}
    for run in study.runs:
        made: dict[str, list[tuple[str | None, Frame]]] = {
            name: [(None, frame)] for name, frame in _of_results(run, study.classes).items() if len(frame)
        }
        path = study.run_folder(run) / "routing.parquet"
        for split, rows in read_rows(path).items() if path.is_file() else ():
            for name, frame in frames_of(rows, study.classes, study.domains, per_expert=split == "test").items():
                # The rates in results.json are the run's own word; those of its rows stand in where it has none.
                if name != "activation" or made.get(name, [(split, None)])[0][0] is not None:
                    made.setdefault(name, []).append((split, frame))
        for name, frames in made.items():
            for split, frame in frames:
                lead = {"variant": run["variant"], "seed": run["seed"]} | ({"split": split} if split else {})
                parts.setdefault(name, []).append(_led(frame, lead))
    tables = {name: concatenate(frames) if frames else make_frame([], COLUMNS[name]) for name, frames in parts.items()}
    tables["results"] = _results(study)
    tables["summary"] = _summary(study, tables["results"])
    tables["stages"] = make_frame([_stage(stage) for stage in study.stages])
    tables["stage_epochs"] = make_frame(
        [(stage["stage"], stage["seed"], *line) for stage in study.stages for line in _epochs(stage)], STAGE_EPOCHS
    )
    return replace(study, tables=tables)


def write_tables(study: Study) -> None:
    """Write results.csv and tables/*.csv; what has no line is not written."""
    for name, frame in study.tables.items():
        path = study.folder / "results.csv" if name == "results" else study.folder / "tables" / f"{name}.csv"
        if len(frame):
            # A gate's entropy belongs to no expert: without this the column turns to fractions.
            frame = frame.astype({"expert": "Int64"}) if "expert" in frame else frame
            with atomic_path(path, sync=False) as temporary:
                frame.to_csv(temporary, index=False, float_format="%.7g", lineterminator="\n")


def _led(frame: Frame, lead: Mapping[str, Any]) -> Frame:
    """The frame with constant columns before its own."""
    return frame.assign(**lead)[[*lead, *(name for name in frame.columns if name not in lead)]]


def _of_results(run: Mapping[str, Any], classes: tuple[str, ...]) -> dict[str, Frame]:
    by_domain = [
        (split, domain, value)
        for split in SPLITS
        for domain, value in ((run.get("accuracy_by_domain") or {}).get(split) or {}).items()
    ]
    lines = {
        "epochs": _epochs(run),
        "gates": _gates(run),
        "accuracy_by_domain": by_domain,
        "activation": _activation(run),
        "experts_alone": map(_alone, run.get("experts_alone") or ()),
        "experts_alone_by_class": (
            (expert["paths"][0], name, value)
            for expert in run.get("experts_alone") or ()
            for name, value in zip(classes, expert.get("by_class") or (), strict=False)
            if value is not None
        ),
    }
    return {name: make_frame(list(found), COLUMNS[name][2:]) for name, found in lines.items()}


def _epochs(run: Mapping[str, Any]) -> Iterator[tuple]:
    for line in run.get("epochs") or ():
        for split in (*SPLITS, "validation"):
            for measure, value in (line.get(split) or {}).items():
                if measure in ("terms", "accuracy_by_domain"):
                    prefix = "loss" if measure == "terms" else "accuracy"
                    yield from ((line["epoch"], split, f"{prefix}:{name}", part) for name, part in value.items())
                elif isinstance(value, int | float):
                    yield line["epoch"], split, measure, value


def _gates(run: Mapping[str, Any]) -> Iterator[tuple]:
    for line in run.get("epochs") or ():
        for gate, measures in (line.get("gates") or {}).items():
            for measure, value in measures.items():
                values = enumerate(value) if isinstance(value, list) else [(None, value)]
                yield from ((gate or ROOT, line["epoch"], measure, expert, part) for expert, part in values)


def _activation(run: Mapping[str, Any]) -> Iterator[tuple]:
    for gate, source in {ROOT: run, **(run.get("gates") or {})}.items():
        for by, key in (("domain", "activation"), ("class", "activation_by_class")):
            for split in SPLITS:
                for group, rates in ((source.get(key) or {}).get(split) or {}).items():
                    yield from ((gate or ROOT, split, by, group, expert, rate) for expert, rate in enumerate(rates))


def _alone(expert: Mapping[str, Any]) -> tuple:
    confidence = expert.get("confidence") or {}
    knows = None if expert.get("classes") is None else " ".join(map(str, expert["classes"]))
    measures = [expert.get(name) for name in ("accuracy", "validation_accuracy", "own", "outside")]
    lead = (expert["paths"][0], expert.get("name"), knows, expert.get("frozen"))
    return (*lead, *measures, confidence.get("own"), confidence.get("outside"))


def _stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    line = {key: stage.get(key) for key in ("stage", "seed", "epoch", "seconds", "parameters")}
    line["epochs"] = len(stage.get("epochs") or ())
    line["classes"] = " ".join(map(str, stage.get("classes") or ()))
    for split in (*SPLITS, "validation"):
        line[f"{split}_rows"] = (stage.get("rows") or {}).get(split)
        line[f"{split}_accuracy"] = (stage.get("accuracy") or {}).get(split)
    return line


def _results(study: Study) -> Frame:
    lines = []
    for run in study.runs:
        line: dict[str, Any] = {"variant": run["variant"], "seed": run["seed"]}
        for measure in ("accuracy", "loss"):
            line |= {f"{split}_{measure}": (run.get(measure) or {}).get(split) for split in SPLITS}
        for split in SPLITS:
            by_domain = (run.get("accuracy_by_domain") or {}).get(split) or {}
            line |= {f"{split}_accuracy:{domain}": value for domain, value in by_domain.items()}
        numbers = {
            key: value
            for key, value in run.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and key not in line
        }
        lines.append(line | numbers)
    return make_frame(lines)


def _summary(study: Study, results: Frame) -> Frame:
    lines = []
    for variant in study.variants:
        own = results[results["variant"] == variant]
        for column in [name for name in results.columns if name not in ("variant", "seed")]:
            values = [float(value) for value in own[column] if pd.notna(value)]
            if values:
                split, _, measure = (
                    column.partition("_") if column.startswith(("train_", "test_")) else ("", "", column)
                )
                found = interval(values)
                line = (variant, measure, split, found.mean, found.low, found.high, found.median, found.count)
                lines.append(line)
    return make_frame(lines, columns=list(COLUMNS["summary"]))
