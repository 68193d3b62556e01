"""From the `model` part of a recipe to a module: its Spec is resolved, and built."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from moebius.experts.adapter import Adapter
from moebius.kit.errors import ArgumentError
from moebius.lab.model.resolve import Resolver
from moebius.storage.spec import NAMED, Spec, build, join_path


@dataclass
class StageNetworks:
    """The networks that earlier stages train, and that `{kind: stage, stage: NAME}` puts into a model.

    One object serves one model: where its part names a stage twice with the same options, both places hold the same
    module.

    Arguments:
        specs: the stages, as for `resolve`.
        fill: loads the trained weights of a stage, named by the first argument, into its model; None = leave the
            weights as they are initialised.
        labels: as for `resolve`.

    Attributes:
        adapters: key of a use, which tells apart stages, parts and options → its adapter, once the model is built.
        sources: adapter → name of the stage.
    """

    specs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fill: Callable[[str, nn.Module], None] | None = None
    labels: Sequence[int] | None = None
    adapters: dict[str, Adapter] = field(default_factory=dict)
    sources: dict[nn.Module, str] = field(default_factory=dict)

    def fill_part(self, spec: Spec, whole: nn.Module) -> None:
        """Load the weights of the stage that a Spec of kind part names."""
        if self.fill is not None:
            self.fill(spec["stage"], whole)

    def note_adapters(self, model: nn.Module, spec: Spec) -> None:
        """Note the adapters of the model around networks of stages."""
        adapters = dict(_adapters(spec))
        for place, adapter in adapters.items():
            network = adapter["network"]
            if "same_as" in network:
                network = adapters[network["same_as"].removesuffix(".network")]["network"]
            use = {**adapter, "network": {key: network[key] for key in ("stage", "part")}}
            module = model.get_submodule(place)
            assert isinstance(module, Adapter)
            self.adapters[json.dumps(use, sort_keys=True)] = module
            self.sources[module] = network["stage"]


def build_model(part: Mapping[str, Any], facts: Mapping[str, Any], stages: StageNetworks | None = None) -> nn.Module:
    """Build the model of a recipe's model part, for data with these facts; `resolve` says how it is completed.

    Arguments:
        part: `gate`, `experts`, and optionally `router`, `combine`, `execution`, or `layers`, as in a recipe's `model`.
        facts: `features`, `classes` and `domains` of the data; of images `channels` and `size` (pixels); of a table
            `cardinalities`; of several tasks `outputs` (task → number of outputs).
        stages: the networks for parts of kind `stage`.

    Returns:
        A `Mixture`; for `layers` an `nn.Sequential`, or the part where there is one.

    Raises:
        ArgumentError: a component refuses a value; `argument` is the value's path inside `part`.
        UnknownKindError: no room has a kind of this name.

    Example:
        >>> import torch
        >>> facts = {"features": 64, "channels": 1, "size": 8, "classes": 20, "domains": 2}
        >>> moe = build_model({"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}}, facts)
        >>> moe(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 20])
    """
    stages = StageNetworks() if stages is None else stages
    resolver = Resolver(stages.specs, stages.labels)
    try:
        spec = resolver.model(part, facts)
        model = build(spec, fill=stages.fill_part)
    except ArgumentError as error:
        raise resolver.at_origin(error) from None
    stages.note_adapters(model, spec)
    return model


def _adapters(spec: Any, place: str = "") -> Iterator[tuple[str, Spec]]:
    """Place and Spec of every adapter around the network of a stage, without those inside such networks."""
    if isinstance(spec, list):
        for number, item in enumerate(spec):
            yield from _adapters(item, join_path(place, str(number)))
    elif isinstance(spec, Mapping):
        if spec.get("kind") == "adapter":
            yield place, spec
        elif spec.get("kind") == "sequential":
            yield from _adapters(spec["parts"], place)
        elif NAMED in spec:
            for name, value in spec[NAMED].items():
                yield from _adapters(value, join_path(place, name))
        else:
            for name, value in spec.items():
                yield from _adapters(value, join_path(place, name))
