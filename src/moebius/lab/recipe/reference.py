"""docs/recipe-keys.md: all keys of a recipe, and all kinds with their keywords, written from the code."""

import textwrap
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, WithJsonSchema
from pydantic.fields import FieldInfo

from moebius.experts.adapter import Adapter
from moebius.kit.registry import find, summary
from moebius.lab.checks.keywords import Keyword, list_keywords, parse_arguments, read_keywords, yaml_text
from moebius.lab.checks.strict import PLACE
from moebius.lab.checks.wording import describe_type
from moebius.lab.recipe import schema
from moebius.lab.recipe.kind_schemas import writable_kinds
from moebius.lab.recipe.layer_keys import LAYER_KEYS, LayerKey
from moebius.lab.recipe.model import ADAPTING
from moebius.lab.training.gate_losses import GateLoss
from moebius.lab.training.optimizer_choice import OPTIMIZERS, OptimizerChoice
from moebius.lab.training.settings import L2, Part, Plateau, Settings, Watch
from moebius.networks import STARTS

WIDTH = 120
HEAD = """# Keys of a recipe

Written by `moebius schema --markdown > docs/recipe-keys.md` from the code; `moebius list ROOM --keys` prints a part of
it. For completion and checks in an editor, write the JSON Schema once, `moebius schema > recipe.schema.json`, and begin
a recipe with `# yaml-language-server: $schema=recipe.schema.json`.

What a recipe leaves out has its default. Mappings of a variant are laid over those that the variants share, key by key;
one that names another `kind` replaces. `moebius run` reads presets and `KEY=VALUE` words as dotted keys:
`training.epochs=2`, `data.sets[0].name=ylecun/mnist`, `'variants.hidden.gate.hidden=[128]'`."""
# The mappings of the file with the place where each stands, in the order of the page.
SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The file", schema.RecipeFile),
    ("data", schema.DataSpec),
    ("variants.NAME.data", schema.DataChange),
    ("training", Settings),
    ("training.optimizer", OptimizerChoice),
    ("training.gate and training.experts", Part),
    ("training.losses[…]", GateLoss),
    ("training.watch", Watch),
    ("training.watch.plateau", Plateau),
    ("training.l2", L2),
    ("pretraining", schema.PretrainingSpec),
    ("stages.NAME", schema.StageFile),
    ("sweep", schema.SweepSpec),
    ("sweep.keys.KEY, as a range", schema.RangeSpec),
    ("report", schema.ReportSpec),
    ("report.curves[…]", schema.CurvesSpec),
    ("report.expert_count", schema.ExpertCountSpec),
    ("report.one_expert", schema.OneExpertSpec),
    ("published", schema.PublishedSpec),
    ("published.variants.NAME", schema.PublishedVariantSpec),
)
# What stands in the places that the JSON Schema marks.
PLACES = {
    "amount": "a number or a schedule",
    "rate": "a number or a schedule",
    "rate-or-null": "a number, a schedule or null",
    "kind": "text",
    "source": "a source",
    "augmentation": "an augmentation",
    "task": "a task, or its kind",
    "loss": "a loss",
    "optimizer": "a mapping, or its kind",
    "model": "a mixture",
    "mixture-or-null": "a mixture or null",
    "network-change": "an expert",
    "Settings-change": "a mapping",
    "variant": "a mixture with `training` and `data`",
    "StageFile": "a mapping",
    "rows": "train, held_out, or {cross_fit: K}",
    "preset": "dotted keys and their values",
    "swept-values": "a list of values, or a range",
}
MIXTURE = (
    ("gate", "a kind of room gates, or stage", "required", "gives each row a score for each expert."),
    ("router", "a kind of room routers", "default {kind: soft}", "turns scores into weights and choices."),
    ("experts", "a kind of room experts, mixture or stage; or a list of them", "required", "what the rows go through."),
    ("combine", "a kind of room combine", "default {kind: weighted_sum}", "merges the experts' outputs."),
    ("execution", "a kind of room execution", "default auto", "how rows are moved to experts and back."),
    (
        "layers",
        "a list, each a kind of rooms layers or experts, mixture or stage",
        "",
        "in place of all others: parts one after another, each on the outputs of the one before, the last for the"
        " classes; at least one is a mixture. Not in {kind: mixture, …}.",
    ),
    (
        "init",
        "one of " + ", ".join(STARTS),
        "",
        "how the weights of all networks inside begin, gates and experts, that take `init` and name none themselves;"
        " the networks of stages keep theirs.",
    ),
)
# What stands under the keys of the layers that a recipe gives parts.
LAYER_FORMS = {
    "gate": "a kind of room gates, or stage",
    "router": "a kind of room routers",
    "experts": "a kind of room experts, mixture or stage; or a list of them",
    "network": "a kind of room experts, mixture or stage",
    "combine": "a kind of room combine",
    "execution": "a kind of room execution",
    "axis": "1 or -1",
    "number": "a whole number",
    "levels": "a list of mappings",
}
ROOMS = (
    ("gates", "Gates", "In `gate`; also `{kind: stage, …}`."),
    ("routers", "Routers", "In `router`, and in the routers that take another."),
    (
        "experts",
        "Experts",
        "In `experts`; each kind also takes `count`, the number of such experts (default 1). Also `{kind: stage, …}`,"
        " and `{kind: mixture, …}` with the keys of a mixture.",
    ),
    (
        "layers",
        "Layers",
        "In `layers`. Those with gates for several tasks are the last part, and the tasks are those of the data.",
    ),
    ("combine", "Combine", "In `combine`."),
    (
        "losses",
        "Losses",
        "In `training.losses`; each kind also takes `weight`. Keywords that are numbers take schedules.",
    ),
    ("tasks", "Tasks", "In `task`."),
    ("schedules", "Schedules", "Wherever a number may follow one; epochs are counted from 0, and may be fractions."),
    ("data.sources", "Sources", "In `data.sets`."),
    ("data.augmentation", "Augmentations", "In `training.augment`."),
)


def recipe_reference() -> str:
    """The page, in Markdown with lines of at most 120 characters."""
    parts = [HEAD]
    for place, model in SECTIONS:
        parts += [f"## {place}", _wrapped(summary(model)), _bullets(_field_lines(model))]
    parts += ["## A mixture", _wrapped("`model`, the `model` of a stage, a variant, and `{kind: mixture, …}`.")]
    parts.append(_bullets(_line(f"`{name}`", kind, state, text) for name, kind, state, text in MIXTURE))
    parts += [
        "## {kind: stage, …}",
        _wrapped("The network of a stage with its trained weights, as a gate or an expert."),
    ]
    parts.append(_bullets(_stage_lines()))
    for room, heading, where in ROOMS:
        parts += [f"## {heading}", _wrapped(where)]
        for kind in writable_kinds(room):
            parts += [f"### {heading}: {kind}", _wrapped(summary(find(room, kind)))]
            parts.append(_bullets(map(keyword_line, list_keywords(room, kind))))
        for kind in LAYER_KEYS if room == "layers" else ():
            parts += [f"### {heading}: {kind}", _wrapped(summary(find(room, kind)))]
            parts.append(_bullets(map(_layer_line, LAYER_KEYS[kind])))
    parts += ["## Optimizers", _wrapped("In `training.optimizer`, with `lr`; PyTorch documents their keywords.")]
    for kind, optimizer in OPTIMIZERS.items():
        keywords = read_keywords(optimizer, ("params", "lr"))
        parts += [f"### Optimizers: {kind}", f"`torch.optim.{optimizer.__name__}`"]
        parts.append(_bullets(map(keyword_line, keywords)))
    return "\n\n".join(part for part in parts if part) + "\n"


def keyword_line(keyword: Keyword) -> str:
    """A keyword with its type, its default and its text."""
    return _line(f"`{keyword.name}`", keyword.type, keyword.state, keyword.text)


def _layer_line(key: LayerKey) -> str:
    kind = LAYER_FORMS[key.form] + ("; or a mapping from tasks to such" if key.by_name else "")
    return _line(f"`{key.name}`", kind, f"default {key.default}" if key.example is None else "required", key.text)


def _field_lines(model: type[BaseModel]) -> Iterable[str]:
    texts = parse_arguments(model.__doc__)
    for name, field in model.model_fields.items():
        yield _line(f"`{name}`", _type_words(_annotation(field)), _state(field), texts[name])


def _stage_lines() -> Iterable[str]:
    yield _line("`stage`", "text", "required", "name of the stage.")
    yield _line("`part`", "text", "", "path of a module inside what the stage trains; unless given, the whole of it.")
    for keyword in read_keywords(Adapter):
        if keyword.name in ADAPTING:
            state = "default true" if keyword.name == "frozen" else keyword.state
            yield _line(f"`{keyword.name}`", keyword.type, state, keyword.text)


def _line(name: str, kind: str, state: str, text: str) -> str:
    facts = "; ".join(part for part in (kind, state) if part)
    return f"{name} ({facts})" + (f": {text}" if text else "")


def _annotation(field: FieldInfo) -> Any:
    """The type of a field with the marks that pydantic has taken off it."""
    marks = [mark for mark in field.metadata if isinstance(mark, WithJsonSchema)]
    return typing.Annotated[field.annotation, marks[0]] if marks else field.annotation


def _type_words(annotation: Any) -> str:
    for mark in getattr(annotation, "__metadata__", ()):
        place = (mark.json_schema or {}).get(PLACE) if isinstance(mark, WithJsonSchema) else None
        if place is not None:
            return PLACES[place]
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a mapping"
    if origin in (list, tuple) and _is_marked(arguments[0]):
        return f"a list, each {_type_words(arguments[0])}"
    if origin is dict and _is_marked(arguments[1]):
        return f"names, each with {_type_words(arguments[1])}"
    if any(isinstance(part, type) and issubclass(part, BaseModel) for part in arguments):
        return "a mapping or null" if type(None) in arguments else "a list of mappings"
    return describe_type(annotation) or "any value"


def _is_marked(annotation: Any) -> bool:
    return any(isinstance(mark, WithJsonSchema) for mark in getattr(annotation, "__metadata__", ()))


def _state(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return "" if isinstance(field.default, BaseModel) else f"default {yaml_text(field.default)}"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(_wrapped(line, first="- ", rest="  ") for line in lines)


def _wrapped(text: str, first: str = "", rest: str = "") -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
