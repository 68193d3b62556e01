"""What a model does with the rows of every split, at the end of an epoch and of the training."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from moebius.core.output_cache import OutputCache
from moebius.lab.data.batches import in_order
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

Known = Mapping[str, Evaluation]


class Evaluator:
    """Evaluates one model on the splits of one data set, frozen parts by memory.

    Arguments:
        model: as the accelerator prepared it.
        bare: the same without its wrapping.
        objective: what it is trained by.
        data: the splits.
        accelerator: device and precision.
        remembering: of the frozen parts.
        remember: whether to; False to run them every time.
    """

    def __init__(
        self,
        model: nn.Module,
        bare: Mixture,
        objective: Objective,
        data: Dataset,
        accelerator: Accelerator,
        remembering: OutputCaches,
        remember: bool = True,
    ):
        self.model, self.bare, self.objective, self.data = model, bare, objective, data
        self.accelerator, self.remembering, self.remember = accelerator, remembering, remember
        self.channels_last = any(isinstance(module, nn.Conv2d) for module in bare.modules())
        splits = {"training": data.train, "validation": data.validation, "test": data.test}
        self.splits = {name: split.to(accelerator.device) for name, split in splits.items() if split is not None}
        # Where the held-out rows are all there is to test on, they are gone through once.
        self.one_and_the_same = data.validation is data.test

    def evaluate(
        self, name: str, epoch: int = 0, step: int = 0, finite: bool = True, known: Known | None = None
    ) -> Evaluation:
        """The model on the split "training", "validation" or "test".

        Arguments:
            name: of the split.
            epoch, step: when, from 1.
            finite: whether every row has to have a finite loss. One expert alone may know nothing of a row's class.
            known: name of a split → what came out there with this model, where another has looked already.

        Raises:
            TrainingError: a loss is not finite.
        """
        split = self.splits[name]
        evaluation = (known or {}).get(name)
        if evaluation is None:
            evaluation = evaluate(self.model, self.objective, split, self.channels_last, self._memory(split, name))
        if finite and not math.isfinite(evaluation.loss):
            # The last update of an epoch may be the one that broke the model.
            rows = torch.nonzero(~evaluation.losses.isfinite()).squeeze(1)[:ROWS_AT_ONCE]
            batch = next(in_order(split.take(rows.to(split.labels.device)), ROWS_AT_ONCE))
            terms = {f"{name} cross_entropy": evaluation.losses.sum()}
            raise nonfinite_error(self.bare, batch, terms, epoch, step)
        return evaluation

    def look(self, name: str) -> dict[str, Any]:
        """Accuracy, loss and accuracy by domain on a split."""
        return self._summary(self.evaluate(name))

    def entry(self, epoch: int, train: dict[str, Any], step: int = 0, known: Known | None = None) -> dict[str, Any]:
        """The metrics of an epoch: `train` is what was measured on the way, `known` as in `evaluate`."""
        test = self.evaluate("test", epoch, step, known=known)
        entry = {
            "epoch": epoch,
            "train": train,
            "test": self._summary(test),
            "gates": {path: test.gate_summary(path) for path in test.gates},
        }
        if "validation" in self.splits:
            held_out = test if self.one_and_the_same else self.evaluate("validation", epoch, step, known=known)
            entry["validation"] = self._summary(held_out)
        return entry

    def outcome(
        self, metrics: list[dict[str, Any]], epoch: int, remembered: bool = False, known: Known | None = None
    ) -> Trained:
        """Everything about the finished model, whose weights are those of the epoch given; `known` as in `evaluate`."""
        train, test = self.evaluate("training", known=known), self.evaluate("test", known=known)
        validation = None
        if "validation" in self.splits:
            validation = test if self.one_and_the_same else self.evaluate("validation", known=known)
        one_expert, alone, alone_held_out = None, (), ()
        if len(self.bare.experts) > 1:
            with cut_to_one_expert(self.bare):
                one_expert = self.evaluate("test", finite=False)
            alone = self._alone("test")
            if "validation" in self.splits:
                alone_held_out = alone if self.one_and_the_same else self._alone("validation")
        share = oracle(alone, test.labels)
        return Trained(
            self.bare, epoch, metrics, train, test, validation, one_expert, alone, alone_held_out, share, remembered
        )

    def remembers(self, rows: TrainingRows) -> bool:
        """Whether what frozen parts say of the training rows is computed once."""
        return bool(self.memory_of(rows).tables)

    def memory_of(self, rows: TrainingRows) -> OutputCache:
        """What frozen parts say of the training rows; nothing where that differs from epoch to epoch."""
        return OutputCache() if rows.drawn_anew else self._memory(rows.split, rows.name) or OutputCache()

    def what_is_remembered(self, rows: TrainingRows) -> str | None:
        """How frozen parts are run, as a sentence for the log; None without any."""
        count = len(self.remembering.parts)
        if not count:
            return None
        parts = f"{count} frozen part{'s' * (count > 1)}"
        if not self.remember:
            return f"{parts}: computed in every step, for nothing is to be remembered"
        if rows.drawn_anew:
            return f"{parts}: computed in every step, for augmentation changes the rows"
        kept = len(self.memory_of(rows).tables)
        if kept < count:
            which = "" if not kept else f"{count - kept} of them "
            return f"{parts}: {which}computed in every step, for what they say takes up too much memory"
        return f"{parts}: computed once for every training row"

    def _memory(self, split: Split, name: str) -> OutputCache | None:
        if not self.remember or not self.remembering.parts:
            return None
        name = "test" if name == "validation" and self.one_and_the_same else name
        return self.remembering.of(split, f"{self.data.fingerprint}/{name}")

    def _alone(self, name: str) -> tuple[ExpertAlone, ...]:
        split = self.splits[name]
        given = (len(self.data.classes), self.channels_last, self._memory(split, name))
        return experts_alone(self.bare, split, *given, lambda: self.accelerator.autocast())

    def _summary(self, evaluation: Evaluation) -> dict[str, Any]:
        by_domain = evaluation.accuracy_by_domain(self.data.groups)
        return {"accuracy": evaluation.accuracy, "loss": evaluation.loss, "accuracy_by_domain": by_domain}
