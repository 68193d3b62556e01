"""Evaluation of the models of S ≥ 1 runs on all splits, at the end of an epoch and of the training."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from moebius.core.output_cache import OutputCache
from moebius.lab.data.batches import ordered_batches
from moebius.lab.data.split import Dataset
from moebius.lab.illnesses._illness import Finding
from moebius.lab.training.engine import Engine
from moebius.lab.training.evaluation import ROWS_AT_ONCE, Evaluation, evaluate
from moebius.lab.training.expert_alone import ExpertAlone, experts_alone, oracle, position_oracle
from moebius.lab.training.gate_watch import GateWatch, codes_by_gate
from moebius.lab.training.measure import check_metric_names, resolve_watch
from moebius.lab.training.metrics import Metric
from moebius.lab.training.mixture_parts import chooses_experts
from moebius.lab.training.nonfinite_error import nonfinite_error
from moebius.lab.training.one_expert import cut_to_one_expert
from moebius.lab.training.outcome import Trained
from moebius.lab.training.output_caches import OutputCaches
from moebius.lab.training.processes import Processes
from moebius.lab.training.rows import TrainingRows
from moebius.lab.training.run_record import RunRecord
from moebius.lab.training.settings import Watch
from moebius.layers.position_mixture import PositionMixture
from moebius.tasks._task import Task
from moebius.tasks.tokens import Tokens

# Name of a split → a run's evaluation on it.
Evaluations = Mapping[str, Evaluation]


class Evaluator:
    """Evaluates the models of an engine on the splits of one data set; outputs of frozen parts come from a cache.

    Arguments:
        engine: with the models.
        task: what is learned, as the models' outputs are to be read.
        data: the splits, on the engine's device.
        caches: of the frozen parts' outputs.
        use_caches: False to run the frozen parts every time.
        metrics: name → function of the outputs and targets of a split; of held-out and test rows.
        processes: that share the rows.
    """

    def __init__(
        self,
        engine: Engine,
        task: Task,
        data: Dataset,
        caches: OutputCaches,
        use_caches: bool = True,
        metrics: Mapping[str, Metric] = MappingProxyType({}),
        processes: Processes | None = None,
    ):
        self.engine, self.task, self.data, self.metrics = engine, task, data, metrics
        self.processes = processes or Processes.current()
        self.caches, self.use_caches = caches, use_caches
        self.gate_watch = GateWatch(engine.models[0], task)
        self.splits = {"train": data.train}
        if data.validation is not None:
            self.splits["validation"] = data.validation
        if data.has_test:
            self.splits["test"] = data.test
        # The splits that are evaluated after every epoch, the final rows first.
        self.of_epoch = [name for name in ("test", "validation") if name in self.splits] or ["train"]

    def resolve_watch(self, watch: Watch) -> Watch | None:
        """The rules by which held-out rows decide, with the measure's name and mode; None without such rows.

        Raises:
            ArgumentError: there is no such measure, or nothing tells its mode; or one of the user's metrics has the
                name of a figure that is reported anyway.
        """
        names = [self.task.score_name, "loss"]
        if self.metrics or watch.measure not in ("score", *names):
            (first, *_) = evaluate(self.engine.call, self.task, self.data.train.take(slice(0, 1)))
            names += first.metrics
        check_metric_names(self.metrics, names)
        if "validation" not in self.splits:
            return None
        return resolve_watch(watch, self.task.score_name, [*names, *self.metrics], self.metrics)

    def evaluate(self, *names: str) -> list[Evaluations]:
        """Each run's evaluations on those of the splits "train", "validation" and "test" that the data have."""
        by_split = {
            name: evaluate(
                self.engine.call,
                self.task,
                self.splits[name],
                self._cache_of(name),
                {} if name == "train" else self.metrics,
                self.processes,
            )
            for name in names
            if name in self.splits
        }
        return [{name: of_runs[run] for name, of_runs in by_split.items()} for run in range(self.engine.runs)]

    def check_finite(self, run: int, evaluations: Evaluations, epoch: int, step: int) -> None:
        """Whether all rows have a finite loss: the last update of an epoch may be the one that broke a model.

        Arguments:
            run: number of the run.
            evaluations: of its model.
            epoch, step: the moment for the message, from 1.

        Raises:
            TrainingError: a loss is not finite.
        """
        for name, evaluation in evaluations.items():
            if not math.isfinite(evaluation.loss):
                rows = torch.nonzero(~evaluation.losses.isfinite()).squeeze(1)[:ROWS_AT_ONCE]
                batch = next(ordered_batches(self.splits[name].take(rows.to(self.engine.device)), ROWS_AT_ONCE))
                noun = "training" if name == "train" else name
                terms = {f"{noun} {self.task.loss_name}": evaluation.losses.sum()}
                raise nonfinite_error(self.engine.models[run], batch, terms, epoch, step)

    def findings(self, evaluations: Evaluations) -> list[Finding]:
        """What the gates suffer from, by the weights of the final rows."""
        return self.gate_watch.findings(evaluations[self.of_epoch[0]])

    def epoch_entry(
        self,
        epoch: int,
        training_figures: Mapping[str, Any],
        evaluations: Evaluations,
        findings: Sequence[Finding] = (),
    ) -> dict[str, Any]:
        """The metrics of an epoch; `training_figures` were measured in its steps."""
        final = evaluations[self.of_epoch[0]]
        return {
            "epoch": epoch,
            "train": training_figures,
            **({"test": self.summary(evaluations["test"])} if "test" in evaluations else {}),
            "gates": {gate: final.gate_summary(gate) for gate in final.gates},
            **({"validation": self.summary(evaluations["validation"])} if "validation" in evaluations else {}),
            **({"findings": codes_by_gate(findings)} if findings else {}),
        }

    def summary(self, evaluation: Evaluation) -> dict[str, Any]:
        """Score, loss and score by domain, and the task's metrics."""
        score, names = self.task.score_name, (*evaluation.metrics, *evaluation.figures)
        metrics = {name: evaluation.metric(name) for name in names}
        by_domain = {f"{score}_by_domain": evaluation.score_by_domain(self.data.groups)}
        return {
            score: evaluation.score,
            "loss": evaluation.loss,
            **by_domain,
            **({"metrics": metrics} if metrics else {}),
        }

    def outcome(
        self, run: int, metrics: list[dict[str, Any]], epoch: int, evaluations: Evaluations, used_cache: bool = False
    ) -> Trained:
        """The outcome of a run's finished model.

        What is measured with one expert at a time is left empty where the model is no mixture itself, nor a layer of
        several gates. Experts of such a layer are not measured alone: they give no task's output. The oracle picks an
        expert for each row; for a `PositionMixture` that gives classes, for each position.

        Arguments:
            run: number of the run.
            metrics: an entry per epoch.
            epoch: the one whose weights the model has.
            evaluations: on all splits.
            used_cache: whether the outputs of frozen parts for the training rows were computed once.
        """
        call = self.engine.calls[run]
        one_expert, alone, alone_held_out = None, (), ()
        final = self.of_epoch[0]
        if chooses_experts(call.model):
            with cut_to_one_expert(call.model):
                rows, cache = self.splits[final], self._cache_of(final)
                (one_expert,) = evaluate(call, self.task, rows, cache, processes=self.processes)
            shape = evaluations[final].shape
            alone = self._evaluate_alone(run, final, shape)
            if "validation" in self.splits:
                is_final = final == "validation"
                alone_held_out = alone if is_final else self._evaluate_alone(run, "validation", shape)
        return Trained(
            call.model,
            epoch,
            metrics,
            {name: evaluations[name] for name in self.splits},
            one_expert,
            alone,
            alone_held_out,
            self._oracle(call.model, alone),
            used_cache,
        )

    def _oracle(self, model: nn.Module, alone: tuple[ExpertAlone, ...]) -> float | None:
        if isinstance(model, PositionMixture) and isinstance(self.task, Tokens):
            return position_oracle(alone, self.task, self.splits[self.of_epoch[0]].labels)
        return oracle(alone)

    def untrained_outcome(self, record: RunRecord) -> Trained:
        """The outcome of a model that has no parameters to train."""
        (evaluations,) = self.evaluate("train", "test", "validation")
        self.check_finite(0, evaluations, 0, 0)
        record.progress.metrics.append(self.epoch_entry(0, self.summary(evaluations["train"]), evaluations))
        record.write_metrics()
        return self.outcome(0, record.progress.metrics, 0, evaluations)

    def training_cache(self, rows: TrainingRows) -> OutputCache:
        """The outputs of frozen parts for the training rows; empty where rows differ from epoch to epoch."""
        if rows.drawn_anew or not self._caches:
            return OutputCache()
        return self.caches.training_cache(rows.split, f"{self.data.fingerprint}/{rows.name}")

    def describe_caching(self, rows: TrainingRows) -> str | None:
        """How frozen parts are run, as a sentence for the log; None without any."""
        count = len(self.caches.parts)
        if not count:
            return None
        parts = f"{count} frozen part{'s' * (count > 1)}"
        if not self.use_caches:
            return f"{parts}: computed in every step, because caching is switched off (remember: false)"
        if rows.drawn_anew:
            return f"{parts}: computed in every step, because augmentation changes the rows"
        cached = len(self.training_cache(rows).tables)
        if cached < count:
            which = f"{count - cached} of them " if cached else ""
            return f"{parts}: {which}computed in every step, because the outputs take too much memory"
        folds = self.caches.cross_fit
        by = "" if folds is None else f", by stages trained without its fold, of {folds.count}"
        return f"{parts}: computed once for every training row{by}"

    @property
    def _caches(self) -> bool:
        return self.use_caches and bool(self.caches.parts)

    def _cache_of(self, name: str) -> OutputCache | None:
        if not self._caches:
            return None
        return self.caches.cache_of(
            self.splits[name], f"{self.data.fingerprint}/{'training' if name == 'train' else name}"
        )

    def _evaluate_alone(self, run: int, name: str, shape: tuple[int, ...]) -> tuple[ExpertAlone, ...]:
        call, split = self.engine.calls[run], self.splits[name]
        return experts_alone(call, self.task, split, shape, self._cache_of(name))
