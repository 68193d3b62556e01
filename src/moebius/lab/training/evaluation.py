"""The outputs of a trained model for every row of a split."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from moebius.core.output_cache import OutputCache
from moebius.core.recording import Recorder
from moebius.core.row_context import current_context, row_context
from moebius.kit.modes import evaluation_mode
from moebius.lab.data.batches import ordered_batches
from moebius.lab.data.nested import map_nested
from moebius.lab.data.split import Split
from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.diagnostics.entropy import Entropy
from moebius.lab.diagnostics.load import Load
from moebius.lab.report.gate_names import gate_name
from moebius.lab.training.call_model import ModelCall, part_input
from moebius.lab.training.computed_rows import ComputedRows
from moebius.lab.training.metrics import Metric, compute_metric
from moebius.lab.training.mixture_parts import MixtureLayer, gate_experts
from moebius.lab.training.processes import Processes
from moebius.lab.training.routed_tokens import store_by_row, tokens_per_row
from moebius.lab.training.summary import html_summary
from moebius.tasks._task import Task

# Rows at once. Fixed, so that a result does not depend on what memory happens to be free.
ROWS_AT_ONCE = 256


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The outcome of each row of a split, in the split's order, on the CPU.

    Arguments:
        labels: targets of the rows: classes, or those of another task.
        domains: of the rows.
        predictions: what the task reads in the outputs: the class with the largest.
        probabilities: of the prediction; None for a task without.
        losses: the task's loss of each row: cross-entropy, in nats.
        scores: the task's score of each row: whether it is predicted right.
        metrics: further figures of each row by name; NaN for a row that has none.
        loss_name, score_name: what losses and scores are.
        shape: of the model's output for a row; () for several outputs by name.
        figures: numbers of all rows together, by name.
        averaged: names of the gates whose weights are means over the tokens, or positions, of a row.
        gates: name of each gate (its module path, such as `gate` and `experts.0.gate`) → its weights for each row; NaN
            for rows that did not reach it. For a mixture of tokens, or of positions, the mean over those of the row.
    """

    labels: Any
    domains: Int[Tensor, " T"]
    predictions: Shaped[Tensor, "T ..."]
    probabilities: Float[Tensor, "T ..."] | None
    losses: Float[Tensor, " T"]
    scores: Shaped[Tensor, " T"]
    gates: dict[str, Float[Tensor, "T _"]] = field(default_factory=dict)
    metrics: Mapping[str, Shaped[Tensor, " T"]] = field(default_factory=dict)
    loss_name: str = "cross_entropy"
    score_name: str = "accuracy"
    shape: tuple[int, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    averaged: frozenset[str] = frozenset()

    @property
    def score(self) -> float:
        """Mean score of the rows: for classes the share predicted right, R² for quantities, and so on."""
        return self.scores.double().mean().item()

    @property
    def accuracy(self) -> float:
        """Share of rows predicted right.

        Raises:
            AttributeError: the score of the task is no accuracy.
        """
        if self.score_name != "accuracy":
            raise AttributeError(f"the score of this task is {self.score_name}: evaluation.score")
        return self.score

    @property
    def loss(self) -> float:
        """Mean loss of the rows; cross-entropy in nats."""
        return self.losses.double().mean().item()

    def metric(self, name: str) -> float:
        """A figure, or the mean of a metric over the rows that have it; NaN without any."""
        return self.figures[name] if name in self.figures else self.metrics[name].double().nanmean().item()

    def score_by_domain(self, domains: Sequence[str]) -> dict[str, float]:
        """Mean score of the rows in each domain that has rows."""
        scores = self.scores.double()
        return {
            name: scores[self.domains == number].mean().item()
            for number, name in enumerate(domains)
            if (self.domains == number).any()
        }

    def active_experts(self, gate: str = "gate") -> float:
        """Mean number of experts to which a gate gives a weight above or below 0 for a row."""
        weights = self._weights_of(gate)
        return (weights != 0).sum(1).double().mean().item() if len(weights) else 0.0

    def gate_summary(self, gate: str = "gate") -> dict[str, Any]:
        """Entropies in nats, load and importance of a gate, over the rows that reached it.

        entropy is the mean over rows of H(G(x_i)), marginal_entropy that of the mean over rows.
        """
        weights = self._weights_of(gate).double()
        if not len(weights):
            return {"rows": 0}
        rows = RoutedRows(weights)
        entropies, loads = Entropy.of(rows), Load.of(rows)
        return {
            "rows": len(weights),
            "entropy": entropies["row"].item(),
            "marginal_entropy": entropies["marginal"].item(),
            "load": loads["load"].tolist(),
            "importance": loads["importance"].tolist(),
        }

    def describe_gates(self, most: int = 3) -> str:
        """Experts used per row, of how many, for the first `most` gates, by name where there are several."""
        several = len(self.gates) > 1
        texts = [
            f"{self.active_experts(gate):.2f} of {self.gates[gate].shape[1]}" + (f" ({gate})" if several else "")
            for gate in list(self.gates)[:most]
        ]
        return ", ".join(texts) + (f", and {len(self.gates) - most} more" if len(self.gates) > most else "")

    def _weights_of(self, gate: str) -> Float[Tensor, "T E"]:
        weights = self.gates[gate]
        return weights[~weights.isnan().any(1)]

    def _figures(self) -> list[tuple[str, str]]:
        figures = [(self.score_name, f"{self.score:.3f}"), ("loss", f"{self.loss:.3f}")]
        figures += [(name, f"{self.metric(name):.3f}") for name in (*self.metrics, *self.figures)]
        return [*figures, ("experts used per row", self.describe_gates())] if self.gates else figures

    def __repr__(self) -> str:
        figures = ", ".join(f"{name} {value}" for name, value in self._figures())
        return f"Evaluation({len(self.domains):,} rows: {figures})"

    def _repr_html_(self) -> str:
        return html_summary(f"Evaluation of {len(self.domains):,} rows", self._figures())


def evaluate(
    call: ModelCall,
    task: Task,
    split: Split,
    cache: OutputCache | None = None,
    metrics: Mapping[str, Metric] = MappingProxyType({}),
    processes: Processes | None = None,
) -> list[Evaluation]:
    """Run a model in eval mode over all rows of a split; the modes of its parts are put back afterwards.

    Arguments:
        call: the model; one that stands for several runs computes all rows for each of them.
        task: what is learned, as the model's outputs are to be read.
        split: rows.
        cache: outputs of frozen parts for the rows of the split.
        metrics: name → function of the outputs and targets of all rows; for a model of one run.
        processes: that share the rows, in the pieces that one process alone computes; each returns all rows.

    Returns:
        The evaluation of each run.
    """
    cache, runs, processes = cache or OutputCache(), call.runs, processes or Processes(0, 1)
    place = processes.block(len(split), ROWS_AT_ONCE)
    part = split.take(place) if processes.are_several else split
    columns: dict[str, list[Tensor]] = {}
    shape: tuple[int, ...] = ()
    outputs: list[Any] = []
    # A gate that no row of a batch reaches is not in the batch's log.
    gates = {
        path: torch.full((runs, len(part), experts), torch.nan, device=split.device)
        for path, experts in gate_experts(call.model).items()
    }
    averaged: set[str] = set()
    recorder, layers = Recorder(call.model), dict(call.model.named_modules(remove_duplicate=False))
    with evaluation_mode(call.model), torch.inference_mode():
        for batch in ordered_batches(part, ROWS_AT_ONCE, channels_last=call.channels_last):
            x, labels, domains = map_nested((batch.x, batch.labels, batch.domains), lambda rows: _repeat(rows, runs))
            numbers = batch.rows + place.start if place.start else batch.rows
            with recorder.recording() as log, cache.serve_rows(numbers):
                output = call(x, domains)
            shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
            if metrics:
                outputs.append(output)
            outcome = {
                **task.predict(output),
                "losses": task.row_losses(output, labels),
                "scores": task.row_scores(output, labels),
                **{f"metrics.{name}": values for name, values in task.row_metrics(output, labels).items()},
            }
            for name, values in outcome.items():
                columns.setdefault(name, []).append(values.unflatten(0, (runs, len(batch))))
            for path, calls in log.items():
                empty = calls[0].weights.new_full((runs, len(part), calls[0].experts), torch.nan)
                table = gates.setdefault(path, empty)
                tokens = tokens_per_row(path, log, runs * len(batch), layers)
                averaged.update([path] if tokens > 1 or len(calls) > 1 else [])
                for routing in calls:
                    store_by_row(table, routing.weights, routing.rows, batch.rows, runs, tokens)
    joined = {name: torch.cat(pieces, 1).cpu() for name, pieces in columns.items()}
    if processes.are_several:
        computed = ComputedRows(len(part), joined, gates, outputs, shape, averaged)
        _, joined, gates, outputs, shape, averaged = computed.gathered(processes, split.device)
    figures = {name: compute_metric(name, metric, outputs, split.labels) for name, metric in metrics.items()}
    row_metrics = {name.removeprefix("metrics."): joined.pop(name) for name in [*joined] if name.startswith("metrics.")}
    rows = (map_nested(split.labels, Tensor.cpu), split.domains.cpu())
    # A layer of several gates records the routings of each under the gate's own path.
    names = {path: gate_name(path) if isinstance(layers[path], MixtureLayer) else path for path in gates}
    all_gates = {names[path]: gates[path].cpu() for path in sorted(gates, key=[*layers].index)}
    return [
        Evaluation(
            *rows,
            joined["predictions"][run],
            joined["probabilities"][run] if "probabilities" in joined else None,
            joined["losses"][run],
            joined["scores"][run],
            {gate: table[run] for gate, table in all_gates.items()},
            {name: values[run] for name, values in row_metrics.items()},
            task.loss_name,
            task.score_name,
            shape,
            figures,
            frozenset(names[path] for path in averaged),
        )
        for run in range(runs)
    ]


def _repeat(rows: Tensor, runs: int) -> Tensor:
    """The rows, once for each run."""
    return rows if runs == 1 else rows.expand(runs, *rows.shape).flatten(0, 1)


def part_outputs(
    module: nn.Module, split: Split, call: ModelCall, cache: OutputCache | None = None
) -> Iterator[Tensor]:
    """The outputs of one part of a model for the rows of a split, piece by piece, in the split's order.

    Arguments:
        module: an expert or a gate, in the mode and with the gradients that the caller wants.
        split: rows.
        call: how the model is computed.
        cache: outputs of frozen parts for the rows of the split.
    """
    cache = cache or OutputCache()
    for batch in ordered_batches(split, ROWS_AT_ONCE, channels_last=call.channels_last):
        context = row_context(current_context().with_values({"domain": batch.domains}))
        with call.autocast(batch.domains.device), cache.serve_rows(batch.rows), context:
            piece = module(part_input(call.model, module, batch.x))
        yield piece
