"""The members of a job: models, rows and stages of the runs that a process trains."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from moebius.kit.errors import TrainingError
from moebius.lab.data.select_rows import select_rows
from moebius.lab.data.split import Dataset
from moebius.lab.model.build import StageNetworks, build_model
from moebius.lab.study.cohorts import Job
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.study.stages import digest
from moebius.lab.training.checkpoint import restore_weights
from moebius.lab.training.engine import Member
from moebius.lab.training.fit_parts import fit_parts
from moebius.lab.training.loop import Loop
from moebius.lab.training.outcome import Event
from moebius.lab.training.settings import Settings
from moebius.tasks._choice import as_task


@dataclass(frozen=True)
class JobMembers:
    """What a process trains for a job.

    Arguments:
        job: one run, or the runs of a cohort.
        rows: that they are trained on.
        stages: networks that stages have trained, for each run.
        members: the runs, as the training loop takes them.
    """

    job: Job
    rows: Dataset
    stages: list[StageNetworks]
    members: list[Member]

    @classmethod
    def of(
        cls, job: Job, data: Dataset, folder: Callable[[RunSpec], Path], send: Callable[[int, Event], None]
    ) -> "JobMembers":
        """The members of a job.

        Arguments:
            job: one run, or the runs of a cohort.
            data: of the study.
            folder: where the training of a run writes.
            send: receives the number of a run, and an event.
        """
        first = job[0]
        data = data.with_scale(first.scale)
        rows = data if first.selects is None else select_rows(data, **first.selects)
        stages = [_stage_networks(run) for run in job]

        def member(number: int, run: RunSpec) -> Member:
            def build() -> nn.Module:
                model = build_model(run.model, rows.facts, stages[number])
                fit_parts(model, rows.train)
                return model

            def listen(event: Event) -> None:
                send(number, event)

            return Member(build, Settings.model_validate(run.training), run.draws, folder(run), listen)

        return cls(job, rows, stages, [member(*each) for each in enumerate(job)])

    def loop(self, checkpoint: Path, device: str, fail: Callable[[int, TrainingError], None]) -> Loop:
        """The training loop of the members.

        Arguments:
            checkpoint: the file with the state of all runs.
            device: "cpu" or "cuda".
            fail: receives the number of a run that failed, and the error.
        """
        first = self.job[0]

        def store(part: nn.Module, split: str) -> Path | None:
            return _outputs_path(first, self.stages[0], part, split)

        return Loop(self.members, self.rows, checkpoint, device, fail, store, as_task(first.task))


def _stage_networks(run: RunSpec) -> StageNetworks:
    def load_weights(name: str, mixture: nn.Module) -> None:
        restore_weights(run.folders[name] / "model.safetensors", mixture)

    return StageNetworks(run.stages, load_weights, run.labels)


def _outputs_path(run: RunSpec, stages: StageNetworks, part: nn.Module, split: str) -> Path | None:
    """The file of a stage part's outputs for a split: in the stage's folder, for all models that use the part."""
    stage = stages.sources.get(part)
    if stage is None:
        return None
    # Which part of the stage it is, and with which options: two that differ may have equal texts.
    use = next(use for use, adapter in stages.adapters.items() if adapter is part)
    key = digest([use, str(part), split, run.training["precision"]])
    return run.folders[stage] / "outputs" / f"{key}.safetensors"
