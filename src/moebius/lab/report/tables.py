"""All tables of a report, tidy: one observation per line."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from moebius.kit.errors import MoebiusError
from moebius.kit.files import atomic_path
from moebius.lab.report.comparisons import compare_variants, comparison_frame, read_row_scores
from moebius.lab.report.find_diagnostics import find_diagnostics, tabulate_rows
from moebius.lab.report.frames import Frame, concatenate, for_spreadsheets, make_frame, prepend_columns
from moebius.lab.report.points import SweptPoint, value_words
from moebius.lab.report.published import published_tables
from moebius.lab.report.read_rows import read_rows
from moebius.lab.report.source import Study
from moebius.lab.statistics.interval import interval

SPLITS = ("train", "test")
SUMMARY = ("variant", "measure", "split", "mean", "low", "high", "median", "seeds")
STAGE_EPOCHS = ("stage", "seed", "epoch", "split", "measure", "value")


def columns_of(score: str) -> dict[str, tuple[str, ...]]:
    """The columns of each table of results.json but variant and seed, which come first.

    Arguments:
        score: name of the task's score.
    """
    alone = (score, f"validation_{score}", "own", "outside", "confidence_own", "confidence_outside")
    return {
        "epochs": ("epoch", "split", "measure", "value"),
        "gates": ("gate", "epoch", "measure", "expert", "value"),
        f"{score}_by_domain": ("split", "domain", score),
        "metrics": ("split", "metric", "value"),
        "experts_alone": ("path", "name", "knows", "frozen", *alone),
        "experts_alone_by_class": ("path", "class", score),
    }


def tabulate(study: Study) -> Study:
    """The study with its tables (of results.json, and of every diagnostic over the runs' rows) and its comparisons.

    Raises:
        MoebiusError: a diagnostic has the name of another table.
    """
    diagnostics = find_diagnostics()
    columns = columns_of(study.score)
    parts: dict[str, list[Frame]] = {name: [] for name in columns}
    row_parts: dict[str, list[Frame]] = {}
    for run in study.runs:
        lead = {"variant": run["variant"], "seed": run["seed"]}
        for name, frame in _result_tables(run, study.score, study.classes).items():
            if len(frame):
                parts[name].append(prepend_columns(frame, lead))
        path = study.run_folder(run) / "routing.parquet"
        for rows in read_rows(path, study.classes, study.domains) if path.is_file() else ():
            for name, frame in tabulate_rows(rows, diagnostics).items():
                row_parts.setdefault(name, []).append(prepend_columns(frame, {**lead, "split": rows.split}))
    tables = {
        name: concatenate(frames) if frames else make_frame([], ("variant", "seed", *columns[name]))
        for name, frames in parts.items()
    }
    tables["results"] = _results(study)
    tables["summary"] = _summary(study, tables["results"])
    tables["sweep"] = make_frame([line for point in study.points for line in _point_lines(study, point)])
    tables["stages"] = make_frame([_stage_line(stage, study.score) for stage in study.stages])
    tables["stage_epochs"] = make_frame(
        [(stage["stage"], stage["seed"], *line) for stage in study.stages for line in _epoch_lines(stage)], STAGE_EPOCHS
    )
    row_scores = read_row_scores(study)
    family = compare_variants(study, row_scores)
    tables["comparisons"] = comparison_frame(family)
    for name in sorted(row_parts.keys() & tables.keys()):
        rule = f"diagnostics kind {name!r}: the report has another table of this name"
        raise MoebiusError(rule, f"rename the diagnostic to rows_{name}")
    tables |= {name: concatenate(frames) for name, frames in row_parts.items()}
    study = replace(study, tables=tables, family=family, row_scores=row_scores)
    return replace(study, tables={**tables, **published_tables(study)})


def write_tables(study: Study) -> None:
    """Write results.csv and tables/*.csv; tables without lines are left out."""
    for name, frame in study.tables.items():
        path = study.folder / "results.csv" if name == "results" else study.folder / "tables" / f"{name}.csv"
        if len(frame):
            # The entropy of a gate has no expert. Without Int64 the missing value turns the column into fractions.
            frame = frame.astype({"expert": "Int64"}) if "expert" in frame else frame
            with atomic_path(path, sync=False) as temporary:
                for_spreadsheets(frame).to_csv(temporary, index=False, float_format="%.7g", lineterminator="\n")


def _result_tables(run: Mapping[str, Any], score: str, class_names: tuple[str, ...]) -> dict[str, Frame]:
    """The tables of a run's entry in results.json, without the columns variant and seed."""
    by_domain = run.get(f"{score}_by_domain") or {}
    lines = {
        "epochs": _epoch_lines(run),
        "gates": _gate_lines(run),
        f"{score}_by_domain": (
            (split, domain, value) for split in SPLITS for domain, value in (by_domain.get(split) or {}).items()
        ),
        "metrics": (
            (split, name, value)
            for split, values in (run.get("metrics") or {}).items()
            for name, value in values.items()
            if value is not None
        ),
        "experts_alone": (_expert_line(expert, score) for expert in run.get("experts_alone") or ()),
        "experts_alone_by_class": (
            (expert["paths"][0], name, value)
            for expert in run.get("experts_alone") or ()
            for name, value in zip(class_names, expert.get("by_class") or (), strict=False)
            if value is not None
        ),
    }
    columns = columns_of(score)
    return {name: make_frame(list(table_lines), columns[name]) for name, table_lines in lines.items()}


def _epoch_lines(run: Mapping[str, Any]) -> Iterator[tuple]:
    for epoch in run.get("epochs") or ():
        for split in (*SPLITS, "validation"):
            for measure, value in (epoch.get(split) or {}).items():
                if isinstance(value, Mapping):
                    prefix = {"terms": "loss"}.get(measure, measure.removesuffix("_by_domain"))
                    yield from ((epoch["epoch"], split, f"{prefix}:{name}", part) for name, part in value.items())
                elif isinstance(value, int | float):
                    yield epoch["epoch"], split, measure, value


def _gate_lines(run: Mapping[str, Any]) -> Iterator[tuple]:
    for epoch in run.get("epochs") or ():
        for gate, measures in (epoch.get("gates") or {}).items():
            for measure, value in measures.items():
                values = enumerate(value) if isinstance(value, list) else [(None, value)]
                yield from ((gate, epoch["epoch"], measure, expert, part) for expert, part in values)


def _expert_line(expert: Mapping[str, Any], score: str) -> tuple:
    confidence = expert.get("confidence") or {}
    known_classes = None if expert.get("classes") is None else " ".join(map(str, expert["classes"]))
    measures = [expert.get(name) for name in (score, f"validation_{score}", "own", "outside")]
    lead = (expert["paths"][0], expert.get("name"), known_classes, expert.get("frozen"))
    return (*lead, *measures, confidence.get("own"), confidence.get("outside"))


def _point_lines(study: Study, point: SweptPoint) -> Iterator[dict[str, Any]]:
    """One line per point and seed; a point without finished runs has one line without a score."""
    lead = {"variant": point.variant, "point": point.name}
    values = {key: value_words(value) for key, value in point.values.items()}
    for seed, score in point.scores.items() or [(None, None)]:
        chosen = study.chosen.get(point.variant) is point
        yield {**lead, "seed": seed, **values, f"validation_{study.score}": score, "chosen": chosen}


def _stage_line(stage: Mapping[str, Any], score: str) -> dict[str, Any]:
    line = {key: stage.get(key) for key in ("stage", "seed", "epoch", "seconds", "parameters")}
    line["epochs"] = len(stage.get("epochs") or ())
    line["classes"] = " ".join(map(str, stage.get("classes") or ()))
    for split in (*SPLITS, "validation"):
        line[f"{split}_rows"] = (stage.get("rows") or {}).get(split)
        line[f"{split}_{score}"] = (stage.get(score) or {}).get(split)
    return line


def _results(study: Study) -> Frame:
    """One line per run: scores, losses and metrics, then every number of its entry in results.json."""
    lines = []
    for run in study.runs:
        line: dict[str, Any] = {"variant": run["variant"], "seed": run["seed"]}
        for measure in (study.score, "loss"):
            line |= {f"{split}_{measure}": (run.get(measure) or {}).get(split) for split in SPLITS}
        for split in SPLITS:
            by_domain = (run.get(f"{study.score}_by_domain") or {}).get(split) or {}
            line |= {f"{split}_{study.score}:{domain}": value for domain, value in by_domain.items()}
            metrics = (run.get("metrics") or {}).get(split) or {}
            line |= {f"{split}_{name}": value for name, value in metrics.items()}
        numbers = {
            key: value
            for key, value in run.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and key not in line
        }
        lines.append(line | numbers)
    return make_frame(lines)


def _summary(study: Study, results: Frame) -> Frame:
    """Mean, interval and median over seeds of every column of the results."""
    lines = []
    for variant in study.variants:
        of_variant = results[results["variant"] == variant]
        for column in [name for name in results.columns if name not in ("variant", "seed")]:
            values = [float(value) for value in of_variant[column] if pd.notna(value)]
            if values:
                split, _, measure = (
                    column.partition("_") if column.startswith(("train_", "test_")) else ("", "", column)
                )
                score = interval(values)
                lines.append((variant, measure, split, score.mean, score.low, score.high, score.median, score.count))
    return make_frame(lines, columns=list(SUMMARY))
