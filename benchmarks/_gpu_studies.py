"""Part `studies` of `gpu.py`: the studies that are still to be run on a GPU, smallest first; each goes on."""

import signal
import subprocess
import sys
from dataclasses import dataclass

from _compare import Measurement
from _gpu_conditions import Conditions, Item

from moebius.lab.recipe.load import load_recipe

# Seconds in which an interrupted study ends its processes.
GRACE = 6.0


@dataclass(frozen=True)
class Study:
    """A study to run.

    Arguments:
        recipe: its name.
        seeds: how many, the recipe's unless given.
        preset: of the recipe.
        needs_data: whether data sets have to be at hand.
        overrides: changes of the recipe.
    """

    recipe: str
    seeds: int
    preset: str | None = None
    needs_data: bool = True
    overrides: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.recipe}{f' --preset {self.preset}' if self.preset else ''} --seeds {self.seeds}"


# By the estimated time of all seeds.
STUDIES = (
    Study("quickstart", 3, needs_data=False),
    Study("unlike-experts", 3),
    Study("one-active", 5, "cifar10"),
    Study("one-active", 5),
    Study("cnn-experts", 3, "full"),
    Study("pairwise-cifar10", 3),
)
FEW_ROWS = ("training.epochs=1", "data.train_rows=64", "data.test_rows=32")
TINY_STUDY = Study("quickstart", 1, needs_data=False, overrides=FEW_ROWS)


def make_items(conditions: Conditions) -> dict[str, Item]:
    """An item for each study; dry, one tiny study runs and the others' recipes are checked."""
    if conditions.dry:
        checks = {f"check of {study}": _check_item(study) for study in STUDIES}
        return {f"tiny {TINY_STUDY}": _study_item(conditions, TINY_STUDY), **checks}
    return {str(study): _study_item(conditions, study) for study in STUDIES}


def _check_item(study: Study) -> Item:
    def check() -> tuple[list[Measurement], dict]:
        recipe = load_recipe(study.recipe, preset=study.preset)
        return [], {"variants": len(recipe.variants)}

    return check


def _study_item(conditions: Conditions, study: Study) -> Item:
    def run() -> tuple[list[Measurement], dict]:
        out = conditions.folder / "studies" / "-".join(filter(None, (study.recipe, study.preset)))
        command = [sys.executable, "-m", "moebius", "run", study.recipe, *study.overrides, "--seeds", str(study.seeds)]
        command += ["--out", str(out), "--device", conditions.device]
        command += ["--preset", study.preset] if study.preset else []
        command += ["--workers", "1" if conditions.dry else str(conditions.workers), "--cohorts", "auto"]
        if study.needs_data:
            if conditions.data_dir is None:
                raise FileNotFoundError("no data sets: --data-dir FOLDER")
            command += ["--data-dir", str(conditions.data_dir)]
        process = subprocess.Popen(command)
        try:
            code = process.wait(max(1.0, conditions.seconds_left - GRACE))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(GRACE / 2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise TimeoutError(f"cut; {len(list(out.rglob('result.json')))} runs and stages are finished") from None
        if code:
            raise RuntimeError(f"moebius run ended with code {code}")
        return [], {"runs": len(list(out.rglob("result.json"))), "folder": str(out)}

    return run
