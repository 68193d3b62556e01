"""What a trained mixture does with every row of a split."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from moebius.core.output_cache import OutputCache
from moebius.core.recording import record
from moebius.core.row_context import current_context, row_context
from moebius.kit.modes import evaluation_mode
from moebius.lab.data.batches import in_order
from moebius.lab.data.split import Split
from moebius.lab.diagnostics.entropy import entropy
from moebius.lab.diagnostics.load import load
from moebius.lab.training.objective import Objective
from moebius.layers.mixture import Mixture

# Rows at once. Fixed, so that a result does not depend on what memory happens to be free.
ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Evaluation:
    """The outcome of each row of a split, in the split's order, on the CPU.

    Arguments:
        labels, domains: of the rows.
        predictions: the class with the largest output.
        probabilities: of the prediction.
        losses: cross-entropy of the row, in nats.
        gates: module path of each mixture → the weights it gave; NaN for rows that it was not asked about.
    """

    labels: Int[Tensor, " T"]
    domains: Int[Tensor, " T"]
    predictions: Int[Tensor, " T"]
    probabilities: Float[Tensor, " T"]
    losses: Float[Tensor, " T"]
    gates: dict[str, Float[Tensor, "T _"]] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Share of rows predicted right."""
        return (self.predictions == self.labels).double().mean().item()

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return self.losses.double().mean().item()

    def accuracy_by_domain(self, domains: Sequence[str]) -> dict[str, float]:
        """Share of rows predicted right in each domain that has rows."""
        right = (self.predictions == self.labels).double()
        return {
            name: right[self.domains == number].mean().item()
            for number, name in enumerate(domains)
            if (self.domains == number).any()
        }

    def active_experts(self, path: str = "") -> float:
        """Mean number of experts, of the mixture at a module path, that a row's weights let run."""
        weights = self.gates[path]
        weights = weights[~weights.isnan().any(1)]
        return (weights != 0).sum(1).double().mean().item() if len(weights) else 0.0

    def gate_summary(self, path: str) -> dict[str, Any]:
        """Of the gate at a module path, over the rows that it was asked about: entropies in nats, load and importance.

        entropy is the mean over rows of H(G(x_i)), marginal_entropy that of the mean over rows.
        """
        weights = self.gates[path].double().numpy()
        weights = weights[~np.isnan(weights).any(1)]
        if not len(weights):
            return {"rows": 0}
        decided, used = entropy(weights), load(weights)
        return {
            "rows": len(weights),
            "entropy": decided["row"].item(),
            "marginal_entropy": decided["marginal"].item(),
            "load": used["load"].tolist(),
            "importance": used["importance"].tolist(),
        }


def evaluate(
    model: nn.Module,
    objective: Objective,
    split: Split,
    channels_last: bool = False,
    memory: OutputCache | None = None,
) -> Evaluation:
    """Run `model` in eval mode over all rows of `split`; the modes of its parts are put back afterwards.

    Arguments:
        model, objective: what is trained, and by what.
        split: rows.
        channels_last: layout of the images.
        memory: of the split, for parts that are frozen.
    """
    return evaluate_runs(model, 1, objective, split, channels_last, memory)[0]


def evaluate_runs(
    model: nn.Module,
    runs: int,
    objective: Objective,
    split: Split,
    channels_last: bool = False,
    memory: OutputCache | None = None,
) -> list[Evaluation]:
    """`evaluate` for a model that stands for several (`StackedModel`): each sees all rows of the split.

    Arguments:
        runs: how many.
        model, objective, split, channels_last, memory: as in `evaluate`.
    """
    memory = memory or OutputCache()
    columns: dict[str, list[Tensor]] = {name: [] for name in ("predictions", "probabilities", "losses")}
    # A gate that no row of a batch is sent to, or none at all, is in no log of it.
    gates = {
        path: torch.full((runs, len(split), len(part.experts)), torch.nan, device=split.labels.device)
        for path, part in model.named_modules()
        if isinstance(part, Mixture)
    }
    with evaluation_mode(model), torch.inference_mode():
        for batch in in_order(split, ROWS_AT_ONCE, channels_last=channels_last):
            x, labels, domains = (_repeated(rows, runs) for rows in (batch.x, batch.labels, batch.domains))
            with record(model) as log, memory.serve_rows(batch.rows):
                output = model(x, {"domain": domains})
            probs = output.exp() if objective.gives_log_probabilities else output.softmax(-1)
            probability, prediction = probs.max(-1)
            losses = objective.cross_entropy(output, labels, reduction="none")
            for name, values in zip(columns, (prediction, probability, losses), strict=True):
                columns[name].append(values.unflatten(0, (runs, len(batch))))
            for path, calls in log.items():
                nothing = calls[0].weights.new_full((runs, len(split), calls[0].experts), torch.nan)
                weights = gates.setdefault(path, nothing)
                for routing in calls:
                    rows = batch.rows if routing.rows is None else batch.rows[routing.rows]
                    weights[:, rows] = routing.weights.to(weights.dtype).unflatten(0, (runs, len(rows)))
    joined = {name: torch.cat(parts, 1).cpu() for name, parts in columns.items()}
    given, all_gates = (split.labels.cpu(), split.domains.cpu()), {path: one.cpu() for path, one in gates.items()}
    return [
        Evaluation(
            *given,
            gates={path: weights[run] for path, weights in all_gates.items()},
            **{name: values[run] for name, values in joined.items()},
        )
        for run in range(runs)
    ]


def _repeated(rows: Tensor, runs: int) -> Tensor:
    """The rows, so many times over."""
    return rows if runs == 1 else rows.expand(runs, *rows.shape).flatten(0, 1)


def part_outputs(
    module: nn.Module,
    split: Split,
    channels_last: bool = False,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    memory: OutputCache | None = None,
) -> Iterator[Tensor]:
    """What one part of a model says of the rows of a split, piece by piece, in the split's order.

    Arguments:
        module: an expert or a gate, in the mode and with the gradients that the caller wants.
        split: rows.
        channels_last: layout of the images.
        autocast: in which the model computes.
        memory: of the split, for parts that are frozen.
    """
    memory = memory or OutputCache()
    for batch in in_order(split, ROWS_AT_ONCE, channels_last=channels_last):
        with (
            autocast(),
            memory.serve_rows(batch.rows),
            row_context(current_context().with_values({"domain": batch.domains})),
        ):
            piece = module(batch.x)
        yield piece
