"""What the mappings of a recipe have in common: no unknown keys, no conversions, marked places for kinds."""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema

from moebius.kit.registry import summary
from moebius.lab.checks.keywords import parse_arguments
from moebius.lab.checks.problems import Problem
from moebius.lab.checks.wording import problems_of, raise_problems

# The key by which `json_schema` finds the places that a definition of its own fills, such as `{kind: …}` of a room.
PLACE = "x-moebius"
AtLeastOne = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """A mapping with known keys and no conversions: 2 is a number, "2" is text."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )

    @classmethod
    def to_mapping(cls, value: Any) -> Any:
        """The mapping that a value stands for; other values stay as they are."""
        return value

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[Problem]:
        """The problems of a mapping that the types of its fields do not tell."""
        return ()

    @model_validator(mode="wrap")
    @classmethod
    def _validate_with_checks(cls, value: Any, handler: Callable[[Any], Any]) -> Any:
        value = cls.to_mapping(value)
        problems = cls.check(value) if isinstance(value, Mapping) else []
        try:
            validated = handler(value)
        except ValidationError as error:
            raise_problems([*problems, *problems_of(error, cls)])
            raise
        raise_problems(problems)
        return validated

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        resolved = handler.resolve_ref_schema(schema)
        resolved["description"] = summary(cls)
        texts = parse_arguments(cls.__doc__)
        for name, value in resolved["properties"].items():
            value["description"] = texts[name]
        return schema

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # What differs from the defaults.
        fields = type(self).model_fields
        for name, value in self:
            if name not in fields or getattr(value, "plain", value) != fields[name].default:
                yield name, value


class Keywords(Strict):
    """A mapping that also takes keywords of the component that its `kind` names; the kind alone stands for it."""

    model_config = ConfigDict(extra="allow")

    @classmethod
    def to_mapping(cls, value: Any) -> Any:
        """The kind in a mapping."""
        return value if isinstance(value, Mapping | cls) else {"kind": value}

    @property
    def keywords(self) -> dict[str, Any]:
        """The keys that the schema does not know: keywords of the class or function that `kind` names."""
        return copy.deepcopy(self.model_extra or {})


def place_of(definition: str) -> WithJsonSchema:
    """Mark a type: in the JSON Schema, the definition of this name takes its place."""
    return WithJsonSchema({PLACE: definition})
