"""The shapes of rows, and of what parts of a model give, found by running them on one row without values."""

from collections.abc import Mapping
from typing import Any

import torch

from moebius.core.row_context import current_context, row_context
from moebius.execution.auto import Auto
from moebius.kit.errors import ArgumentError
from moebius.kit.modes import evaluation_mode
from moebius.layers.mixture import executed_by
from moebius.storage.spec import Spec, build


def row_shape(facts: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of a row of the data: (channels, size, size) for images, (features,) for a table.

    Example:
        >>> row_shape({"features": 64, "channels": 1, "size": 8}), row_shape({"features": 4, "cardinalities": []})
        ((1, 8, 8), (4,))
    """
    return (facts["channels"], facts["size"], facts["size"]) if "size" in facts else (facts["features"],)


def output_facts(spec: Spec, facts: Mapping[str, Any], place: str) -> dict[str, int]:
    """The facts of what a model gives for a row; arguments as for `output_shape`.

    Raises:
        ArgumentError: as in `output_shape`, or it gives several outputs by name.
    """
    shape = output_shape(spec, facts, place)
    if not isinstance(shape, torch.Size):
        rule = "gives an output for each task, and only the last part can"
        raise ArgumentError(place, rule, sorted(shape), "what follows as `towers`, a network for each task")
    if len(shape) == 4:
        _, channels, height, width = shape
        return {"features": channels * height * width, "channels": channels, "size": width}
    return {"features": shape[-1]}


def output_shape(spec: Spec, facts: Mapping[str, Any], place: str) -> torch.Size | dict[str, torch.Size]:
    """The shape of a model's output for one row, or the shapes of its outputs by name.

    Arguments:
        spec: of the model.
        facts: of the data.
        place: of its last part, for the error.

    Raises:
        ArgumentError: it does not run, or gives no tensors.
    """
    error: Exception | None = None
    # Parts that read values cannot run on the meta device, where there are none.
    for device in ("meta", "cpu"):
        with torch.random.fork_rng(devices=()), torch.device(device), torch.no_grad():
            model = build(spec)
            x = torch.zeros(1, *row_shape(facts))
            context = current_context().with_values({"domain": torch.zeros(1, dtype=torch.long)})
            try:
                with evaluation_mode(model), executed_by(model, Auto()), row_context(context):
                    y = model(x)
                return {name: output.shape for name, output in y.items()} if isinstance(y, Mapping) else y.shape
            except Exception as problem:  # a component can raise anything
                error = problem
    lines = str(error).strip().splitlines() or [type(error).__name__]
    rows = "images" if "size" in facts else "rows"
    rule = f"does not run on what it gets, {rows} or the outputs of the part before it ({lines[0]})"
    fix = "such as {kind: linear, classes: 64} before it"
    raise ArgumentError(place, rule, spec.get("parts", [spec])[-1]["kind"], fix) from error
