"""How a gate routes the first rows of a case, and what its experts give for them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.recording import Recorder
from moebius.kit.modes import evaluation_mode
from moebius.lab.data.batches import ordered_batches
from moebius.lab.remedies._case import Case

MOST_ROWS = 1024
AT_ONCE = 128
# Numbers of experts' outputs that are kept.
MOST_NUMBERS = 20_000_000


@dataclass(frozen=True)
class Routes:
    """Rows of one gate.

    Arguments:
        weights: of the experts.
        outputs: each expert's output, flat; for the first rows alone where they are large.
    """

    weights: Float[Tensor, "T E"]
    outputs: Float[Tensor, "R E D"]


def record_routes(case: Case) -> Routes:
    """The routes of the case's first rows through its gate."""
    model, weights, outputs, numbers = case.call.model, [], [], 0
    recorder, path = Recorder(model), case.place(model).path
    rows = case.rows.take(slice(0, MOST_ROWS))
    with evaluation_mode(model), torch.inference_mode():
        for batch in ordered_batches(rows, AT_ONCE, channels_last=case.call.channels_last):
            # Twice: where every expert runs, gates inside experts see rows that do not reach them.
            with recorder.recording() as log:
                case.call(batch.x, batch.domains)
            weights += [routing.weights.float() for routing in log.get(path, [])]
            if numbers < MOST_NUMBERS:
                with recorder.recording(outputs=True) as every:
                    case.call(batch.x, batch.domains)
                for routing in every.get(path, []):
                    if routing.outputs is not None:
                        outputs.append(routing.outputs.float().reshape(*routing.weights.shape, -1))
                        numbers += outputs[-1].numel()
    experts = case.place(model).count
    empty = torch.zeros(0, experts, 1)
    return Routes(torch.cat(weights) if weights else empty[..., 0], torch.cat(outputs) if outputs else empty)
