"""The shapes of what parts of a model give, found by running them on one image without values."""

from collections.abc import Mapping, Sequence

import torch

from moebius.core.row_context import current_context, row_context
from moebius.execution.auto import Auto
from moebius.kit.errors import ArgumentError
from moebius.kit.modes import evaluation_mode
from moebius.layers.mixture import executed_by
from moebius.storage.spec import Spec, build


def output_facts(parts: Sequence[Spec], facts: Mapping[str, int], number: int) -> dict[str, int]:
    """The facts of what parts give for an image, of which the last is at the place `number`."""
    shape = output_shape({"kind": "sequential", "parts": list(parts)}, facts, str(number))
    if len(shape) == 4:
        _, channels, height, width = shape
        return {"features": channels * height * width, "channels": channels, "size": width}
    return {"features": shape[-1]}


def output_shape(spec: Spec, facts: Mapping[str, int], place: str) -> torch.Size:
    """The shape of a model's output for one image.

    Arguments:
        spec: of the model, a sequence.
        facts: of the data.
        place: of the last part, for the error.

    Raises:
        ArgumentError: it does not run, or gives no tensor.
    """
    error: Exception | None = None
    # Parts that read values cannot run on the meta device, where there are none.
    for device in ("meta", "cpu"):
        with torch.random.fork_rng(devices=()), torch.device(device), torch.no_grad():
            model = build(spec)
            x = torch.zeros(1, facts["channels"], facts["size"], facts["size"])
            context = current_context().with_values({"domain": torch.zeros(1, dtype=torch.long)})
            try:
                with evaluation_mode(model), executed_by(model, Auto()), row_context(context):
                    return model(x).shape
            except Exception as problem:  # a component can raise anything
                error = problem
    lines = str(error).strip().splitlines() or [type(error).__name__]
    rule = f"does not run on what it gets, images or the outputs of the part before it ({lines[0]})"
    fix = "such as {kind: linear, classes: 64} before it"
    raise ArgumentError(place, rule, spec["parts"][-1]["kind"], fix) from error
