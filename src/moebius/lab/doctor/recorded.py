"""The routings of a model for all rows of a split, gate by gate, as measures read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from moebius.core.output_cache import OutputCache
from moebius.core.recording import Log, Recorder
from moebius.core.routing import Routing
from moebius.kit.modes import evaluation_mode
from moebius.lab.data.batches import Batch, ordered_batches
from moebius.lab.data.split import Split
from moebius.lab.diagnostics._rows import NO_GROUP, RoutedRows
from moebius.lab.diagnostics._weights import without_expert
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.gate_places import find_gates
from moebius.lab.training.mixture_parts import chooses_experts
from moebius.lab.training.routed_tokens import tokens_per_row
from moebius.layers.mixture import Mixture
from moebius.tasks._task import Task
from moebius.tasks.classification import Classification

# Rows of which every expert's output is kept, to compare experts with each other; and how many numbers they may be.
OUTPUT_ROWS = 2000
MOST_NUMBERS = 20_000_000
# Experts up to which the mixture is computed without each of them.
MOST_ABLATED = 64


@dataclass(frozen=True)
class RecordedGate:
    """What one gate did with the rows that reached it.

    Arguments:
        rows: the split's rows in turn, or their tokens.
        origin: the row of the split that each of them is, or is a token of.
        outputs: each expert's output for the first of the rows, flat.
    """

    rows: RoutedRows
    origin: Int[Tensor, " T"]
    outputs: Float[Tensor, "R E D"] | None


class GateRecorder:
    """Runs a model over rows and keeps what its gates did; and what every expert does by itself.

    All experts run on all rows only where the model is itself a mixture, so that its experts may do the whole task;
    those of mixtures inside a network run on the first rows alone.

    Arguments:
        call: the model.
        task: what is learned.
        names: of the groups "class" and "domain".
    """

    def __init__(self, call: ModelCall, task: Task, names: Mapping[str, Sequence[str]]):
        self.call, self.task, self.names = call, task, names
        self.recorder = Recorder(call.model)
        places = [place for place in find_gates(call.model) if place.gate is not None]
        self.most_active = {place.path: place.router.max_active(place.count) for place in places}
        self.modules = dict(call.model.named_modules(remove_duplicate=False))
        self.pieces: dict[str, list[RecordedGate]] = {}

    def record(self, split: Split, size: int, cache: OutputCache, experts: bool = True) -> dict[str, RecordedGate]:
        """Path of each gate that a row reached → its rows.

        Arguments:
            split: rows.
            size: rows at once.
            cache: outputs of experts for the rows of the split.
            experts: whether experts are run by themselves.
        """
        self.pieces = {}
        compares_all = chooses_experts(self.call.model)
        with evaluation_mode(self.call.model), torch.inference_mode():
            for batch in ordered_batches(split, size, channels_last=self.call.channels_last):
                with self.recorder.recording() as log, cache.serve_rows(batch.rows):
                    output = self.call(batch.x, batch.domains)
                every: Log = {}
                if experts and (compares_all or not self._have_outputs()):
                    with self.recorder.recording(outputs=True) as every, cache.serve_rows(batch.rows):
                        self.call(batch.x, batch.domains)
                for path, routings in log.items():
                    tokens = tokens_per_row(path, log, len(batch), self.modules)
                    self._keep(path, routings, every.get(path, []), batch, output, tokens)
        return {path: self._joined(pieces) for path, pieces in self.pieces.items()}

    def _have_outputs(self) -> bool:
        counts = [sum(len(p.rows) for p in pieces if p.outputs is not None) for pieces in self.pieces.values()]
        return bool(counts) and min(counts) >= OUTPUT_ROWS

    def _keep(
        self, path: str, routings: list[Routing], every: list[Routing], batch: Batch, output: Any, tokens: int
    ) -> None:
        for place, routing in enumerate(routings):
            count = len(routing.weights)
            numbers = torch.arange(count) if routing.rows is None else routing.rows.cpu()
            local = numbers // tokens
            groups: dict[str, Tensor] = {"domain": batch.domains.cpu()[local]}
            if isinstance(self.task, Classification) and isinstance(batch.labels, Tensor) and batch.labels.ndim == 1:
                groups["class"] = batch.labels.cpu()[local].clamp(min=NO_GROUP)
            if tokens > 1:
                groups["position"] = numbers % tokens
            outputs = _outputs_of(routing, every[place]) if place < len(every) else None
            columns = (
                {}
                if outputs is None or tokens > 1
                else self._expert_columns(path, routing, outputs, batch, local, output)
            )
            rows = RoutedRows.from_routing(routing, self.most_active.get(path, 0), groups=groups, **columns)
            kept = sum(len(piece.outputs) for piece in self.pieces.get(path, []) if piece.outputs is not None)
            if outputs is not None:
                outputs = outputs.flatten(2) if outputs.ndim > 2 else outputs.unsqueeze(2)
                most = min(OUTPUT_ROWS, max(MOST_NUMBERS // (outputs.shape[1] * outputs.shape[2]), 2))
                outputs = outputs[: max(most - kept, 0)].float().cpu()
            self.pieces.setdefault(path, []).append(RecordedGate(rows, batch.rows.cpu()[local], outputs))

    def experts(self, path: str) -> list[nn.Module]:
        """The experts of the gate that records at a path."""
        experts = self.modules[path].experts
        return [experts[number] for number in range(len(experts))]  # type: ignore[arg-type, index]

    def _expert_columns(
        self, path: str, routing: Routing, outputs: Tensor, batch: Batch, local: Tensor, output: Any
    ) -> dict[str, Any]:
        """Losses, scores and predictions of each expert by itself, and of the mixture without it.

        Empty where experts do not do the whole task.
        """
        if not isinstance(batch.labels, Tensor) or not isinstance(output, Tensor):
            return {}
        if not self.task.accepts_expert(tuple(outputs.shape[2:]), tuple(output.shape[1:])):
            return {}
        labels = batch.labels[local.to(batch.labels.device)]
        # An expert may give logits where the mixture gives log-probabilities.
        tasks = [self.task.for_model(expert) for expert in self.experts(path)]
        predictions = [task.predict(values.float()) for task, values in zip(tasks, outputs.unbind(1), strict=True)]
        columns = {
            "expert_losses": self.task.expert_losses(outputs, labels),
            "expert_scores": torch.stack([self.task.row_scores(values, labels) for values in outputs.unbind(1)], 1),
            "expert_predictions": torch.stack([each["predictions"] for each in predictions], 1),
        }
        if all("probabilities" in each and each["probabilities"].ndim == 1 for each in predictions):
            columns["expert_confidence"] = torch.stack([each["probabilities"] for each in predictions], 1)
        without = self._ablated(path, routing, outputs)
        if without:
            columns["ablated_losses"] = torch.stack([self.task.row_losses(values, labels) for values in without], 1)
            columns["ablated_scores"] = torch.stack([self.task.row_scores(values, labels) for values in without], 1)
        return {name: values.cpu() for name, values in columns.items()}

    def _ablated(self, path: str, routing: Routing, outputs: Tensor) -> list[Tensor]:
        """What the model gives without each expert; nothing for a gate inside, and for very many experts."""
        model = self.call.model
        if path or not isinstance(model, Mixture) or routing.experts > MOST_ABLATED:
            return []
        return [model.combine(outputs, without_expert(routing, expert)).float() for expert in range(routing.experts)]

    def _joined(self, pieces: list[RecordedGate]) -> RecordedGate:
        outputs = [piece.outputs for piece in pieces if piece.outputs is not None]
        rows = replace(RoutedRows.join([piece.rows for piece in pieces]), names=self.names)
        origin = torch.cat([piece.origin for piece in pieces])
        return RecordedGate(rows, origin, torch.cat(outputs) if outputs else None)


def _outputs_of(routing: Routing, every: Routing) -> Tensor | None:
    """The experts' outputs for a routing's rows, of a recording in which mixtures inside others get all rows."""
    outputs = every.outputs
    if outputs is None or len(outputs) == len(routing.weights):
        return outputs
    if routing.rows is None:
        return None
    if every.rows is None:
        return outputs[routing.rows]
    places = torch.full((int(every.rows.max()) + 1,), -1, dtype=torch.long, device=every.rows.device)
    places[every.rows] = torch.arange(len(every.rows), device=every.rows.device)
    return outputs[places[routing.rows]]
