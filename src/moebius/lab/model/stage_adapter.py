"""What follows from a stage for the adapter around its network."""

from collections.abc import Mapping, Sequence
from typing import Any


def adapter_arguments(
    stage: Mapping[str, Any],
    classes: Sequence[int] | None,
    is_whole: bool,
    facts: Mapping[str, Any],
    labels: Sequence[int] | None,
) -> dict[str, Any]:
    """Arguments of the adapter around a stage's network, before the recipe's own.

    Arguments:
        stage: as for `moebius.lab.model.resolve.resolve`.
        classes: positions of the network's classes among the outputs of the model; None for all.
        is_whole: whether the model takes what the stage hands on, and not a part of it that the recipe names.
        facts: of what is around the network.
        labels: of the stage that the model is trained for, as for `resolve`.

    Example:
        >>> adapter_arguments({"others": True}, [0, 8], True, {"classes": 10}, None)
        {'classes': [0, 8], 'total': 10, 'frozen': True, 'others': True}
        >>> adapter_arguments({}, None, True, {"classes": 3}, [0, 8])
        {'classes': None, 'total': None, 'frozen': True, 'kept_classes': [0, 8]}
    """
    arguments = {"classes": classes, "total": facts.get("classes") if classes else None, "frozen": True}
    if stage.get("others") and is_whole:
        arguments["others"] = True
    # A stage of its own classes and all others has one output more than its labels have classes.
    if is_whole and classes is None and labels and facts.get("classes") == len(labels) + 1:
        arguments["kept_classes"] = list(labels)
    return arguments
