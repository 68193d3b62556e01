"""Evaluation of a model on all splits, at the end of an epoch and of the training."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from moebius.core.output_cache import OutputCache
from moebius.lab.data.batches import ordered_batches
from moebius.lab.data.split import Dataset, Split
from moebius.lab.training.evaluation import ROWS_AT_ONCE, Evaluation, evaluate
from moebius.lab.training.expert_alone import ExpertAlone, experts_alone, oracle
from moebius.lab.training.nonfinite_error import nonfinite_error
from moebius.lab.training.objective import Objective
from moebius.lab.training.one_expert import cut_to_one_expert
from moebius.lab.training.outcome import Trained
from moebius.lab.training.output_caches import OutputCaches
from moebius.lab.training.rows import TrainingRows
from moebius.layers.mixture import Mixture

Evaluations = Mapping[str, Evaluation]


class Evaluator:
    """Evaluates one model on the splits of one data set; outputs of frozen parts come from a cache.

    Arguments:
        wrapped_model: as the accelerator prepared it.
        model: the same without its wrapping.
        objective: what the model is trained by.
        data: the splits.
        accelerator: device and precision.
        caches: of the frozen parts' outputs.
        use_caches: False to run the frozen parts every time.
    """

    def __init__(
        self,
        wrapped_model: nn.Module,
        model: nn.Module,
        objective: Objective,
        data: Dataset,
        accelerator: Accelerator,
        caches: OutputCaches,
        use_caches: bool = True,
    ):
        self.wrapped_model, self.model, self.objective, self.data = wrapped_model, model, objective, data
        self.accelerator, self.caches, self.use_caches = accelerator, caches, use_caches
        self.channels_last = any(isinstance(module, nn.Conv2d) for module in model.modules())
        splits = {"training": data.train, "validation": data.validation, "test": data.test}
        self.splits = {name: split.to(accelerator.device) for name, split in splits.items() if split is not None}
        # Where the held-out rows are also the test rows, they are evaluated once.
        self.validation_is_test = data.validation is data.test

    def evaluate(
        self,
        name: str,
        epoch: int = 0,
        step: int = 0,
        must_be_finite: bool = True,
        evaluations: Evaluations | None = None,
    ) -> Evaluation:
        """The model on the split "training", "validation" or "test".

        Arguments:
            name: of the split.
            epoch, step: the moment for error messages, from 1.
            must_be_finite: whether every row has to have a finite loss. An expert alone may not know a row's class.
            evaluations: name of a split → this model's evaluation, for splits that are evaluated already.

        Raises:
            TrainingError: a loss is not finite.
        """
        split = self.splits[name]
        evaluation = (evaluations or {}).get(name)
        if evaluation is None:
            cache = self._cache_of(split, name)
            evaluation = evaluate(self.wrapped_model, self.objective, split, self.channels_last, cache)
        if must_be_finite and not math.isfinite(evaluation.loss):
            # The last update of an epoch may be the one that broke the model.
            rows = torch.nonzero(~evaluation.losses.isfinite()).squeeze(1)[:ROWS_AT_ONCE]
            batch = next(ordered_batches(split.take(rows.to(split.labels.device)), ROWS_AT_ONCE))
            terms = {f"{name} cross_entropy": evaluation.losses.sum()}
            raise nonfinite_error(self.model, batch, terms, epoch, step)
        return evaluation

    def summarise(self, name: str) -> dict[str, Any]:
        """Accuracy, loss and accuracy by domain on a split."""
        return self._summary(self.evaluate(name))

    def epoch_entry(
        self, epoch: int, training_figures: dict[str, Any], step: int = 0, evaluations: Evaluations | None = None
    ) -> dict[str, Any]:
        """The metrics of an epoch; `training_figures` were measured in its steps, `evaluations` as in `evaluate`."""
        test = self.evaluate("test", epoch, step, evaluations=evaluations)
        entry = {
            "epoch": epoch,
            "train": training_figures,
            "test": self._summary(test),
            "gates": {gate: test.gate_summary(gate) for gate in test.gates},
        }
        if "validation" in self.splits:
            validation = test
            if not self.validation_is_test:
                validation = self.evaluate("validation", epoch, step, evaluations=evaluations)
            entry["validation"] = self._summary(validation)
        return entry

    def build_outcome(
        self,
        metrics: list[dict[str, Any]],
        epoch: int,
        used_cache: bool = False,
        evaluations: Evaluations | None = None,
    ) -> Trained:
        """The outcome for the finished model.

        What is measured with one expert at a time is left empty where the model is no mixture itself.

        Arguments:
            metrics: an entry per epoch.
            epoch: the one whose weights the model has.
            used_cache: whether the outputs of frozen parts for the training rows were computed once.
            evaluations: as in `evaluate`.
        """
        train = self.evaluate("training", evaluations=evaluations)
        test = self.evaluate("test", evaluations=evaluations)
        validation = None
        if "validation" in self.splits:
            validation = test if self.validation_is_test else self.evaluate("validation", evaluations=evaluations)
        one_expert, alone, alone_held_out = None, (), ()
        if isinstance(self.model, Mixture) and self.model.count > 1:
            with cut_to_one_expert(self.model):
                one_expert = self.evaluate("test", must_be_finite=False)
            alone = self._evaluate_alone("test")
            if "validation" in self.splits:
                alone_held_out = alone if self.validation_is_test else self._evaluate_alone("validation")
        best_choice = oracle(alone, test.labels)
        return Trained(
            self.model,
            epoch,
            metrics,
            train,
            test,
            validation,
            one_expert,
            alone,
            alone_held_out,
            best_choice,
            used_cache,
        )

    def uses_cache(self, rows: TrainingRows) -> bool:
        """Whether the outputs of frozen parts for the training rows are computed once."""
        return bool(self.training_cache(rows).tables)

    def training_cache(self, rows: TrainingRows) -> OutputCache:
        """The outputs of frozen parts for the training rows; empty where rows differ from epoch to epoch."""
        return OutputCache() if rows.drawn_anew else self._cache_of(rows.split, rows.name) or OutputCache()

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
        return f"{parts}: computed once for every training row"

    def _cache_of(self, split: Split, name: str) -> OutputCache | None:
        if not self.use_caches or not self.caches.parts:
            return None
        name = "test" if name == "validation" and self.validation_is_test else name
        return self.caches.cache_of(split, f"{self.data.fingerprint}/{name}")

    def _evaluate_alone(self, name: str) -> tuple[ExpertAlone, ...]:
        split = self.splits[name]
        options = (len(self.data.classes), self.channels_last, self._cache_of(split, name))
        return experts_alone(self.model, split, *options, lambda: self.accelerator.autocast())

    def _summary(self, evaluation: Evaluation) -> dict[str, Any]:
        by_domain = evaluation.accuracy_by_domain(self.data.groups)
        return {"accuracy": evaluation.accuracy, "loss": evaluation.loss, "accuracy_by_domain": by_domain}
