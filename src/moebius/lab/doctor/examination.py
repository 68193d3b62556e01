"""Examining every gate of a model that holds mixtures of ours: how it routes, and what other routes would give."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from moebius.core.output_cache import OutputCache
from moebius.core.recording import Recorder
from moebius.experts.adapter import Adapter
from moebius.gates.uniform import Uniform
from moebius.kit.modes import evaluation_mode
from moebius.lab.data.batches import ordered_batches
from moebius.lab.data.split import Split
from moebius.lab.doctor.recorded import GateRecorder, RecordedGate
from moebius.lab.doctor.rerouting import swapped_rows, training_routers, uniform_weights
from moebius.lab.illnesses._examination import Examination, Outcome
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.evaluation import ROWS_AT_ONCE, Evaluation, evaluate
from moebius.lab.training.frozen_experts import FrozenExperts
from moebius.lab.training.gate_places import GatePlace, find_gates
from moebius.lab.training.mixture_parts import chooses_experts
from moebius.lab.training.output_caches import OutputCaches
from moebius.lab.training.rerouting import Change, rerouted
from moebius.layers.cgc import CGC
from moebius.tasks._task import Task
from moebius.tasks.regression import Regression

# The second time, rows come in batches of this size: no divisor of the first, so that no batch stays as it was.
OTHER_SIZE = 181
# How often rows are given each other's routes: the mean of several hides less by chance.
SWAPS = 5
# Rows of the backward pass.
GRADIENT_ROWS = 256


class Examiner:
    """Examines the gates of one model on the rows of a split.

    Arguments:
        call: the model.
        task: what is learned, for this model.
        split: rows, on the model's device.
        names: of the groups "class" and "domain".
        real: False for padding, of rows or of their tokens; None where all is real.
    """

    def __init__(
        self,
        call: ModelCall,
        task: Task,
        split: Split,
        names: Mapping[str, Sequence[str]],
        real: Tensor | None = None,
    ):
        self.call, self.task, self.split, self.names, self.real = call, task, split, names, real
        self.modules = dict(call.model.named_modules(remove_duplicate=False))
        # A SoftMoE and an AttentiveMixture select no experts, and record nothing that could be examined.
        self.places = {place.path: place for place in find_gates(call.model) if place.gate is not None}
        self.cache = OutputCache()

    def examine(self) -> list[Examination]:
        """Each gate with more than one expert that a row reached, the outer ones first.

        The experts of a model that is itself a mixture run once on each row; all passes look their outputs up.
        """
        gradients = self._gradients()
        facts = {path: self._facts(path) for path in self.places}
        frozen = FrozenExperts(self.call.model, chooses_experts(self.call.model))
        with frozen.wrapped(), torch.inference_mode():
            self.cache = OutputCaches(self.call).cache_of(self.split, "examined rows")
            recorded = GateRecorder(self.call, self.task, self.names).record(self.split, ROWS_AT_ONCE, self.cache)
            (as_is,) = evaluate(self.call, self.task, self.split, self.cache)
            moved, drops = self._moved(recorded), self._drops()
            examinations = []
            for path in sorted(recorded, key=[*self.modules].index):
                if recorded[path].rows.experts > 1:
                    real = self._real(recorded[path])
                    facts_of_gate = {**facts[path], "gradient": gradients.get(path)}
                    if real is None:
                        facts_of_gate |= {"moved": moved.get(path), "training_drops": drops.get(path)}
                    examinations.append(self._examine(path, recorded[path], real, as_is, facts_of_gate))
        return examinations

    def _examine(
        self, path: str, gate: RecordedGate, real: Tensor | None, as_is: Evaluation, facts_of_gate: Mapping[str, Any]
    ) -> Examination:
        """What is known of one gate; padding counts as padding alone."""
        padding = None
        if real is not None:
            padding = float(gate.rows.kept[~real].sum()), float(gate.rows.kept.sum())
            gate = replace(gate, rows=gate.rows.take(real), origin=gate.origin[real], outputs=None)
        reached = torch.unique(gate.origin)
        rows, is_whole = gate.rows, len(reached) == len(gate.origin)
        if is_whole:
            columns = {"losses": as_is.losses, "scores": as_is.scores, "confidence": as_is.probabilities}
            columns = {name: values for name, values in columns.items() if values is not None and values.ndim == 1}
            rows = replace(rows, **{name: values[gate.origin] for name, values in columns.items()})
        return Examination(
            self.places[path].name,
            rows,
            outermost=path == "",
            outputs=gate.outputs,
            as_is=Outcome(as_is.losses[reached], as_is.scores[reached]),
            padding=padding,
            targets=self._targets(gate, is_whole),
            **self._other_routes(path, reached),
            **facts_of_gate,
        )

    def _facts(self, path: str) -> dict[str, Any]:
        """What the modules of a gate tell."""
        place = self.places[path]
        return {
            "decides": not isinstance(place.gate, Uniform),
            "learns": place.router.trains_gate and any(each.requires_grad for each in place.gate.parameters()),
            "tasks_experts": _tasks_experts(place),
            "expert_classes": self._classes(place),
        }

    def _real(self, gate: RecordedGate) -> Tensor | None:
        """Which of a gate's rows are real; None where no mask was given, or the gate gets no padding."""
        if self.real is None:
            return None
        if self.real.ndim == 1:
            return self.real[gate.origin]
        places = gate.rows.groups.get("position")
        if places is None or len(gate.rows) != self.real.numel():
            return None
        return self.real.flatten(1)[gate.origin, places]

    def _other_routes(self, path: str, reached: Tensor) -> dict[str, Outcome]:
        swaps = [self._rerouted(path, partial(swapped_rows, seed=seed), reached) for seed in range(SWAPS)]
        losses, scores = (
            torch.stack([getattr(swap, name).double() for swap in swaps]).mean(0) for name in ("losses", "scores")
        )
        return {"uniform": self._rerouted(path, uniform_weights, reached), "permuted": Outcome(losses, scores)}

    def _rerouted(self, path: str, change: Change, reached: Tensor) -> Outcome:
        with rerouted(self.call.model, [self.places[path]], change):
            (evaluation,) = evaluate(self.call, self.task, self.split, self.cache)
        return Outcome(evaluation.losses[reached], evaluation.scores[reached])

    def _moved(self, recorded: Mapping[str, RecordedGate]) -> dict[str, Tensor]:
        """Which rows go elsewhere when all come again, in another order and other batches."""
        order = torch.randperm(len(self.split), generator=torch.Generator().manual_seed(1))
        shuffled = self.split.take(order.to(self.split.device))
        cache = OutputCache({part: table[order.to(table.device)] for part, table in self.cache.tables.items()})
        recorder = GateRecorder(self.call, self.task, self.names)
        again = recorder.record(shuffled, OTHER_SIZE, cache, experts=False)
        moved = {}
        for path, gate in recorded.items():
            if path not in again or len(again[path].rows) != len(gate.rows):
                continue
            again_gate = again[path]
            first, second = (torch.argsort(origin, stable=True) for origin in (gate.origin, order[again_gate.origin]))
            if not torch.equal(gate.origin[first], order[again_gate.origin][second]):
                continue
            kept = (gate.rows.kept[first] != again_gate.rows.kept[second]).any(1)
            weights = (gate.rows.weights[first] - again_gate.rows.weights[second]).abs().amax(1) > 0.05
            moved[path] = kept | weights
        return moved

    def _drops(self) -> dict[str, Tensor]:
        """The share of each row's assignments that the capacity refuses in training."""
        limited = {path for path, place in self.places.items() if "dropped" in place.router.aux_names}
        parts: dict[str, list[Tensor]] = {}
        if not limited:
            return {}
        recorder = Recorder(self.call.model)
        with evaluation_mode(self.call.model), torch.no_grad(), training_routers(self.call.model):
            for batch in ordered_batches(self.split, ROWS_AT_ONCE, channels_last=self.call.channels_last):
                with recorder.recording() as log, self.cache.serve_rows(batch.rows):
                    self.call(batch.x, batch.domains)
                for path in limited & log.keys():
                    for routing in log[path]:
                        if routing.selection is not None:
                            parts.setdefault(path, []).append(_dropped_share(routing.selection, len(routing.weights)))
        return {path: torch.cat(shares) for path, shares in parts.items()}

    def _gradients(self) -> dict[str, float]:
        """RMS of the loss's gradient at each gate's scores, of that at the model's output."""
        recorder = Recorder(self.call.model)
        part = self.split.take(torch.arange(min(len(self.split), GRADIENT_ROWS), device=self.split.device))
        batch = next(ordered_batches(part, GRADIENT_ROWS, channels_last=self.call.channels_last))
        with evaluation_mode(self.call.model), torch.enable_grad(), training_routers(self.call.model):
            with recorder.recording() as log:
                output = self.call(batch.x, batch.domains)
            if not isinstance(output, Tensor) or not output.requires_grad:
                return {}
            paths = [path for path, routings in log.items() if routings[0].scores.requires_grad]
            scores = [log[path][0].scores for path in paths]
            loss = self.task.row_losses(output, batch.labels).mean()
            at_output, *at_scores = torch.autograd.grad(loss, [output, *scores], allow_unused=True)
        size = _rms(at_output)
        if not size:
            return {}
        gradients = dict.fromkeys(log, 0.0)
        gradients |= {
            path: 0.0 if gradient is None else _rms(gradient) / size
            for path, gradient in zip(paths, at_scores, strict=True)
        }
        return gradients

    def _classes(self, place: GatePlace) -> tuple[tuple[int, ...] | None, ...]:
        experts = [self.modules[path] for path in place.experts if path in self.modules]
        return tuple(each.classes if isinstance(each, Adapter) else None for each in experts)

    def _targets(self, gate: RecordedGate, is_whole: bool) -> Tensor | None:
        labels = self.split.labels
        if not is_whole or not isinstance(self.task, Regression) or not isinstance(labels, Tensor):
            return None
        return labels.cpu()[gate.origin].flatten() if prod(labels.shape[1:]) == 1 else None


def _tasks_experts(place: GatePlace) -> tuple[int, ...]:
    """The numbers of the experts that a task's gate of a CGC has for itself."""
    layer = place.layer
    if not isinstance(layer, CGC) or place.task is None or place.task not in layer.experts:
        return ()
    return tuple(range(len(layer.experts[place.task])))  # type: ignore[arg-type]


def _dropped_share(selection: Any, rows: int) -> Tensor:
    counts, dropped = torch.zeros(rows), torch.zeros(rows)
    row_A = selection.row_A.cpu()
    counts.index_add_(0, row_A, torch.ones(len(row_A)))
    dropped.index_add_(0, row_A, (~selection.kept_A.cpu()).float())
    return dropped / counts.clamp(min=1)


def _rms(values: Tensor | None) -> float:
    return 0.0 if values is None or not values.numel() else float(values.double().square().mean().sqrt())
