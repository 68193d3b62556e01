"""The keys of the layers whose parts a recipe names: gates, experts and towers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Form = Literal["gate", "router", "experts", "network", "combine", "execution", "axis", "number", "levels"]


@dataclass(frozen=True)
class LayerKey:
    """A key of a layer.

    Arguments:
        name: of the key.
        form: what stands there.
        text: what it is for.
        example: a value; None for a key that may be left out.
        default: in words, of a key that may be left out.
        by_name: whether a mapping from names of tasks may stand in the place of one value for all.
    """

    name: str
    form: Form
    text: str
    example: str | None = None
    default: str = ""
    by_name: bool = False


_MIX = (
    LayerKey("combine", "combine", "merges the experts' outputs.", default="{kind: weighted_sum}"),
    LayerKey("execution", "execution", "how rows are moved to experts and back.", default="auto"),
)
_ROUTER = LayerKey("router", "router", "of each gate, a copy for each.", None, "{kind: soft}", by_name=True)
_TOWERS = LayerKey(
    "towers",
    "network",
    "of each task, from the experts' outputs to the task's; without towers the experts give the outputs, which must be"
    " equally many for all tasks.",
    None,
    "null",
    by_name=True,
)
_GATES = LayerKey("gates", "gate", "a gate for each task.", "{kind: linear}", by_name=True)
_CGC = (
    replace(_GATES, text="a gate for each task; before a PLE's last level also one called shared."),
    LayerKey("experts", "experts", "experts of each task alone.", "{kind: mlp, classes: 32}", by_name=True),
    LayerKey("shared", "experts", "experts of all tasks, such as {kind: mlp, classes: 32, count: 2}.", default="none"),
    _TOWERS,
    _ROUTER,
    *_MIX,
)
LAYER_KEYS: Mapping[str, tuple[LayerKey, ...]] = {
    "multi_gate_mixture": (
        _GATES,
        LayerKey("experts", "experts", "experts of all tasks.", "{kind: mlp, classes: 32, count: 4}"),
        _TOWERS,
        _ROUTER,
        *_MIX,
    ),
    "cgc": _CGC,
    "ple": (
        LayerKey(
            "levels",
            "levels",
            "one after another, each with the keys of a cgc; towers belong to the last.",
            "[{gates: {kind: linear}, experts: {kind: mlp, classes: 32}, shared: {kind: mlp, classes: 32}}]",
        ),
    ),
    "position_mixture": (
        LayerKey("gate", "gate", "scores each position of an input.", "{kind: unet}"),
        LayerKey("experts", "experts", "give an output for each position.", "{kind: unet, count: 2}"),
        LayerKey("router", "router", "turns scores into weights and choices.", default="{kind: soft}"),
        LayerKey("channel_axis", "axis", "of scores and outputs: 1 or -1.", default="1 for images, else -1"),
        *_MIX,
    ),
    "attentive_mixture": (
        LayerKey("gate", "gate", "gives a state for each row, of which the query is made.", "{kind: linear}"),
        LayerKey("bodies", "experts", "give the features that keys are made of.", "{kind: mlp, classes: 32, count: 4}"),
        LayerKey("heads", "network", "a network for each body, on its features.", "{kind: linear}"),
        LayerKey("router", "router", "turns scores into weights and choices.", default="{kind: soft}"),
        LayerKey("gate_features", "number", "width of the gate's state, at least 1.", default="16"),
        LayerKey("expert_features", "number", "width of the bodies' features.", default="what they give"),
        LayerKey("dim", "number", "width of queries and keys, at least 1.", default="32"),
        _MIX[0],
    ),
}
