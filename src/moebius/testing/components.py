"""The contract of every room: a component documents itself, its example runs, and it comes back from a description."""

import copy
import doctest
import inspect
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from moebius.core.row_context import call_with_context, context
from moebius.experts.linear import Linear as LinearExpert
from moebius.experts.unet import UNet
from moebius.gates.linear import Linear as LinearGate
from moebius.kit.registry import kind_of, summary
from moebius.layers.mixture import Mixture
from moebius.layers.position_mixture import PositionMixture
from moebius.routers.soft import Soft
from moebius.storage.load import load
from moebius.storage.save import save
from moebius.storage.spec import ROOMS, build, describe, unknown_parts
from moebius.testing._contract import ContractError, require, require_close, require_equal
from moebius.testing._subject import Subject
from moebius.testing._variation import vary_arguments

_EXPERTS = 4


def is_found_by_its_kind(subject: Subject) -> None:
    """The registry knows room and kind of the component itself: recipes and saved mixtures name it by them."""
    require(callable(subject.component), "is neither a class nor a function")
    if subject.kind is not None:
        named = kind_of(subject.component)
        rule = f"is known to the registry as {named}"
        require(named == (subject.room, subject.kind), rule, "one name for a component")


def documents_itself(subject: Subject) -> None:
    """The docstring begins with a sentence and says where the component is from: "Reference: …"."""
    text = inspect.getdoc(subject.component) or ""
    line = summary(subject.component)
    require(line.endswith((".", "?")), f"has a docstring whose first line is {line!r}, needs a sentence")
    rule = "has a docstring without a reference"
    require("Reference:" in text, rule, 'a paragraph "Reference: …", or "Reference: ours."')


def has_an_example_that_runs(subject: Subject) -> None:
    """The docstring has an example (`>>> …`) that prints what it says."""
    rule = "has a docstring without an example"
    require(">>>" in (inspect.getdoc(subject.component) or ""), rule, 'a paragraph "Example:" with lines of >>>')
    module = sys.modules.get(subject.component.__module__)
    names = dict(vars(module)) if module is not None else {}
    finder, output = doctest.DocTestFinder(recurse=False), []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in finder.find(subject.component, str(subject), module=False, globs=names):
        runner.run(test, out=output.append)
    require(runner.summarize(verbose=False).failed == 0, f"has an example that fails:\n{''.join(output)}")


def is_made_anew_from_its_description(subject: Subject) -> None:
    """`describe` gives a Spec of values that JSON holds, from which an equal component is built.

    For rooms whose components are saved, with the defaults of arguments and with other values: a component keeps each
    argument of its constructor as an attribute of the same name, or says in `kept_as` under which.
    """
    for arguments in _argument_sets(subject):
        part = subject.make(**arguments)
        description = describe(part)
        text = json.dumps(description, allow_nan=False)
        require(json.loads(text) == description, f"is described by {description}, which JSON changes")
        require(description["kind"] == subject.kind, f"is described as of the kind {description['kind']!r}")
        parts = dict(part.named_modules()) if isinstance(part, nn.Module) else {}
        again = build(json.loads(text), subject.room, parts)
        require(type(again) is type(part), f"comes back as a {type(again).__name__}")
        new = describe(again)
        require(new == description, f"comes back with other arguments: {new}, needs {description}", "self.k = k")
        _require_kept(part, arguments, description)
        if isinstance(part, nn.Module):
            require(repr(again) == repr(part), f"comes back as {again!r}, needs {part!r}")
            shapes = {name: tensor.shape for name, tensor in part.state_dict().items()}
            new_shapes = {name: tensor.shape for name, tensor in again.state_dict().items()}
            require(new_shapes == shapes, f"comes back with the tensors {new_shapes}, needs {shapes}")
            again.load_state_dict(part.state_dict())
            first, second = (_respond(subject, module.eval()) for module in (part, again))
            require_close(second, first, "computes something else once it is made anew", rtol=0, atol=0)


def draws_nothing_when_described(subject: Subject) -> None:
    """A description leaves torch's generator as it was."""
    if subject.room in ROOMS and subject.kind is not None:
        part = subject.make()
        before = torch.get_rng_state()
        describe(part)
        require_equal(torch.get_rng_state(), before, "draws from torch's generator when it is described")


def has_the_same_text_for_the_same_arguments(subject: Subject) -> None:
    """Two modules of the same arguments have the same `repr`, with no address in it."""
    if subject.room in ROOMS and isinstance(part := subject.make(), nn.Module):
        first, second = repr(part), repr(subject.make())
        require(first == second, f"has the texts {first} and {second} for the same arguments", "def extra_repr(self)")


def comes_back_from_a_folder(subject: Subject) -> None:
    """In a mixture it is saved and loaded, and gives the same outputs; layers apart."""
    for arguments in _argument_sets(subject) if subject.room != "layers" else ():
        moe = _mixture_with(subject, arguments).eval()
        with TemporaryDirectory() as folder:
            save(moe, folder)
            description = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))["spec"]
            unknown = {place: copy.deepcopy(moe.get_submodule(place)) for place, _ in unknown_parts(description)}
            loaded = load(folder, experts=unknown) if unknown else load(folder)
        first, second = (_respond(subject, module) for module in (moe, loaded))
        require_equal(second.nan_to_num(), first.nan_to_num(), "gives other outputs once it is saved and loaded")


def _argument_sets(subject: Subject) -> tuple[dict[str, Any], ...]:
    """The defaults, and other values; nothing where components are not saved."""
    return ({}, vary_arguments(subject)) if subject.room in ROOMS and subject.kind is not None else ()


def _require_kept(part: Any, arguments: dict[str, Any], description: dict[str, Any]) -> None:
    """Plain arguments have to stand in the description as they were given."""
    for name, value in arguments.items():
        if isinstance(value, bool | int | str):
            kept = description.get(name)
            rule = f"is made with {name}={value!r} and described with {kept!r}"
            require(kept == value, rule, f"self.{name} = {name}")


def _respond(subject: Subject, part: nn.Module) -> Any:
    """What a component computes for the standard sample, or a router for random scores: a tensor, or several."""
    if subject.room == "routers" and not isinstance(part, Mixture):
        generator = torch.Generator().manual_seed(0)
        return part(torch.randn(6, part.gate_outputs(_EXPERTS), generator=generator)).weights  # type: ignore[operator]
    if subject.room == "combine" and not isinstance(part, Mixture):
        values = torch.randn(
            6, subject.sample.experts, subject.sample.classes, generator=torch.Generator().manual_seed(0)
        )
        return part(values, Soft()(torch.zeros(len(values), values.shape[1])))
    if subject.room == "layers":
        return part(torch.randn(2, 6, 64, generator=torch.Generator().manual_seed(0)))
    if subject.room == "combine" and not isinstance(part, Mixture):
        experts, generator = subject.sample.experts, torch.Generator().manual_seed(0)
        outputs = torch.randn(6, experts, subject.sample.classes, generator=generator)
        return part(outputs, Soft()(torch.zeros(6, experts)))
    with context(**subject.sample.side_information(6)):
        y = call_with_context(part, subject.sample.rows(6))
    return y[0] if isinstance(y, tuple) else y


def _mixture_with(subject: Subject, arguments: dict[str, Any]) -> nn.Module:
    features, classes = subject.sample.facts["features"], subject.sample.classes
    part = subject.make(**arguments)
    count = 2 if subject.room == "experts" else subject.sample.experts
    experts = [LinearExpert(features, classes) for _ in range(count)]
    if subject.room == "experts":
        return Mixture(LinearGate(features, 2), [part, subject.make(1, **arguments)])
    if subject.room == "gates" and getattr(subject.component, "by_position", False):
        channels = subject.sample.rows(1).shape[1]
        return PositionMixture(part, [UNet(channels, classes) for _ in range(count)], channel_axis=1)
    if subject.room == "gates":
        return Mixture(part, experts)
    if subject.room == "routers":
        return Mixture(LinearGate(features, part.gate_outputs(count)), experts, part)
    if subject.room == "combine":
        return Mixture(LinearGate(features, count), experts, combine=part)
    raise ContractError(f"belongs to the room {subject.room}, whose components are in no mixture")


CHECKS = (
    is_found_by_its_kind,
    documents_itself,
    has_an_example_that_runs,
    is_made_anew_from_its_description,
    draws_nothing_when_described,
    has_the_same_text_for_the_same_arguments,
    comes_back_from_a_folder,
)
