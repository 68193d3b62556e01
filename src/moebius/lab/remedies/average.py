"""Average: equal weights in the place of the gate's."""

import torch

from moebius.core.recording import Recorder
from moebius.gates.uniform import Uniform
from moebius.kit.modes import evaluation_mode
from moebius.lab.data.batches import ordered_batches
from moebius.lab.remedies._case import Case, Obstacle, Treatment, remedy
from moebius.routers.soft import Soft

# Divides all scores to about 0: the weights of a soft router are equal then, whatever the gate says.
FLAT = 1e30


@remedy("loss")
def average(case: Case) -> Treatment | Obstacle:
    """Every expert runs for every row, with the weight 1/E. Nothing is fitted.

    Reference: ours; the mean of an ensemble, Hansen, Salamon 1990, Neural Network Ensembles.
    """
    copied = case.copy()
    place, before = case.place(copied), _routing_rows(case, case.call.model)
    gate = place.gate
    place.put(gate=Uniform(place.count), router=Soft())
    if _routing_rows(case, copied) != before:  # the gate has other batch axes than `Uniform` takes
        place.put(gate=gate, router=Soft(temperature=FLAT))
    return Treatment(copied, f"all {place.count} experts have equal weights")


def _routing_rows(case: Case, model: torch.nn.Module) -> int | None:
    """How many rows the gate's routing of one row of data has; None where it refuses them."""
    recorder, path = Recorder(model), case.place(model).path
    batch = next(ordered_batches(case.rows.take(slice(0, 1)), 1, channels_last=case.call.channels_last))
    with evaluation_mode(model), torch.no_grad(), recorder.recording() as log:
        try:
            case.call_of(model)(batch.x, batch.domains)
        except (RuntimeError, ValueError):
            return None
    return sum(len(routing.weights) for routing in log.get(path, []))
