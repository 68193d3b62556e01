"""The members of a job: models, rows and stages of the runs that a process trains."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from moebius.experts.adapter import Adapter
from moebius.kit.commands import move_aside
from moebius.kit.errors import TrainingError
from moebius.lab.data.folds import fold_count, fold_names, fold_of_rows
from moebius.lab.data.select_rows import select_rows
from moebius.lab.data.split import Dataset
from moebius.lab.model.build import StageNetworks, build_model
from moebius.lab.study.cohorts import Job
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.study.stages import digest
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.checkpoint import restore_weights
from moebius.lab.training.cross_fit import CrossFit
from moebius.lab.training.engine import Member
from moebius.lab.training.fit_parts import fit_parts
from moebius.lab.training.loop import Loop
from moebius.lab.training.outcome import Event
from moebius.lab.training.output_caches import OutputCaches
from moebius.lab.training.settings import Settings
from moebius.tasks._choice import as_task


@dataclass(frozen=True)
class JobMembers:
    """What a process trains for a job.

    Arguments:
        job: one run, or the runs of a cohort.
        data: of the study, on the runs' scale.
        rows: that they are trained on.
        stages: networks that stages have trained, for each run.
        members: the runs, as the training loop takes them.
    """

    job: Job
    data: Dataset
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

        return cls(job, data, rows, stages, [member(*each) for each in enumerate(job)])

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

        def make_caches(call: ModelCall) -> OutputCaches:
            return OutputCaches(call, store, _cross_fit(first, self.data, self.rows, self.stages[0]))

        return Loop(self.members, self.rows, checkpoint, device, fail, make_caches, as_task(first.task))


def _stage_networks(run: RunSpec, fold: int | None = None) -> StageNetworks:
    """The networks of a run's stages, or of their copies that were trained without a fold."""
    folds = fold_count(run.trained)

    def load_weights(name: str, mixture: nn.Module) -> None:
        name = name if fold is None or folds is None else fold_names(name, folds)[fold]
        path = run.folders[name] / "model.safetensors"
        then = "then run the study again: the stage writes both anew, from its checkpoint"
        restore_weights(path, mixture, f"{move_aside(path, path.with_name('result.json'))}    # {then}")

    return StageNetworks(run.stages, load_weights, run.labels)


def _cross_fit(run: RunSpec, data: Dataset, rows: Dataset, stages: StageNetworks) -> CrossFit | None:
    """What gives the stages' outputs while the run trains; None for the stages themselves."""
    folds = fold_count(run.trained)
    if folds is None:
        return None
    numbered = replace(data, train=replace(data.train, images=torch.arange(len(data.train))))
    chosen = numbered if run.selects is None else select_rows(numbered, **run.selects)

    def build(fold: int) -> tuple[nn.Module, dict[nn.Module, Adapter]]:
        copies = _stage_networks(run, fold)
        model = build_model(run.model, rows.facts, copies)
        return model, {adapter: copies.adapters[use] for use, adapter in stages.adapters.items()}

    return CrossFit(fold_of_rows(len(data.train), folds)[chosen.train.images], build)


def _outputs_path(run: RunSpec, stages: StageNetworks, part: nn.Module, split: str) -> Path | None:
    """The file of a stage part's outputs for a split: in the stage's folder, for all models that use the part."""
    stage = stages.sources.get(part)
    if stage is None:
        return None
    # Which part of the stage it is, and with which options: two that differ may have equal texts.
    use = next(use for use, adapter in stages.adapters.items() if adapter is part)
    key = digest([use, str(part), split, run.training["precision"]])
    return run.folders[stage] / "outputs" / f"{key}.safetensors"
