"""Diagnoses of finished runs, from rows of their own data that they were not trained on."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from moebius.kit.errors import StudyError
from moebius.lab.data.split import Split
from moebius.lab.doctor.diagnose import ROWS, diagnose_split
from moebius.lab.doctor.diagnosis import Diagnosis
from moebius.lab.doctor.trial import Trial
from moebius.lab.predict import load_run
from moebius.lab.study.run_rows import load_run_data
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.mixture_parts import mixture_layers
from moebius.tasks._choice import as_task

SCHEMA = 1


@dataclass(frozen=True)
class RunDiagnosis:
    """What the gates and experts of a run suffer from.

    Arguments:
        run: its folder.
        split: which rows were looked at: "validation", those that were held out, or "test" where none were.
        count: how many of them there are.
        examined: how many were looked at.
        score_name: of the run's task.
        diagnosis: the findings.
        trials: remedies that were tried.
    """

    run: Path
    split: Literal["validation", "test"]
    count: int
    examined: int
    score_name: str
    diagnosis: Diagnosis
    trials: tuple[Trial, ...] = ()

    @property
    def variant(self) -> str:
        """The name of the variant."""
        return self.run.absolute().parent.name

    @property
    def seed(self) -> int:
        """The seed."""
        return _seed(self.run)

    def try_remedies(self, seed: int = 0, progress: Callable[[str], None] | None = None) -> "RunDiagnosis":
        """The same with the remedies that the findings suggest; rows that are too few for that try none."""
        return replace(self, trials=tuple(self.diagnosis.try_remedies(None, seed, progress)))

    def to_dict(self) -> dict[str, Any]:
        """All figures, as they go into JSON."""
        findings = {name: value for name, value in self.diagnosis.to_dict().items() if name != "schema"}
        return {
            "run": str(self.run),
            "variant": self.variant,
            "seed": self.seed,
            "rows": {"split": self.split, "count": self.count, "examined": self.examined},
            "score": self.score_name,
            **findings,
            "trials": [dict(trial.to_dict()) for trial in self.trials],
        }


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The finished runs in folders of runs, variants and studies, in order of variant and seed, each once.

    Raises:
        StudyError: a folder holds none.
    """
    runs: dict[Path, None] = {}
    for folder in folders:
        inside = [folder] if (folder / "result.json").is_file() else []
        for pattern in ("seed-*/result.json", "*/seed-*/result.json"):
            # A damaged run that was moved aside is no run: seed-1.damaged.
            paths = (path.parent for path in folder.glob(pattern) if not path.parent.suffix)
            inside += sorted(paths, key=lambda run: (run.parent.name, _seed(run)))
        if not inside:
            fix = "the folder of a study, as given to --out, or of one of its runs: DIR/VARIANT/seed-N"
            raise StudyError(f"{folder}: holds no finished run (no result.json)", fix)
        runs |= dict.fromkeys(inside)
    return list(runs)


def diagnose_run(
    run: Path, rows: int = ROWS, baseline: bool = False, data_dir: Path | None = None, seed: int = 0
) -> RunDiagnosis:
    """Examine a finished run on its held-out rows, or on the test rows where its recipe holds none out.

    Arguments:
        run: folder of the run, OUT/VARIANT/seed-N.
        rows: how many are looked at.
        baseline: whether the gate's own architecture is trained on the training rows, to be compared with the mixture.
        data_dir: folder with local copies of the data sets; None for the one that the study was planned with.
        seed: of the rows that are drawn.

    Raises:
        StudyError: the folder holds no finished run, or a model without a mixture; or nothing tells its data.
        DataError: the model or the data cannot be read.
    """
    model, header = load_run(run)
    if not mixture_layers(model):
        rule = f"{run}: its model holds no mixture"
        raise StudyError(rule, "the run of a variant that has gates")
    data = load_run_data(run, data_dir)
    split: Split = data.test if data.validation is None else data.validation
    task = as_task(header["task"]).for_model(model).for_data(data.train.labels)
    names = {"class": data.classes, "domain": data.domains}
    call = ModelCall(model, precision=header["precision"])
    diagnosis = diagnose_split(call, task, split, names, rows, seed, train=data.train if baseline else None)
    name: Literal["validation", "test"] = "test" if data.validation is None else "validation"
    return RunDiagnosis(run, name, len(split), min(rows, len(split)), task.score_name, diagnosis)


def _seed(run: Path) -> int:
    match = re.search(r"(\d+)$", run.absolute().name)
    return int(match[1]) if match else 0
