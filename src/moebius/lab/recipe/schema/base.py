"""What the mappings of a recipe have in common: no unknown keys, no conversions, marked places for kinds."""

import copy
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

# The key by which `json_schema` finds the places that a definition of its own fills, such as `{kind: …}` of a room.
PLACE = "x-moebius"
FILE_NAME = r"^\w[\w+-]*$"


class Strict(BaseModel):
    """A mapping with known keys and no conversions: 2 is a number, "2" is text."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Keywords(Strict):
    """A mapping that also takes keywords of the component that its `kind` names."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, allow_inf_nan=False)

    @property
    def keywords(self) -> dict[str, Any]:
        """The keys that the schema does not know: keywords of the class or function that `kind` names."""
        return copy.deepcopy(self.model_extra or {})


def place_of(definition: str) -> WithJsonSchema:
    """Mark a type: in the JSON Schema, the definition of this name takes its place."""
    return WithJsonSchema({PLACE: definition})


def _check_file_name(name: str) -> str:
    if not re.fullmatch(FILE_NAME, name):
        raise ValueError("needs letters, digits, _, + and - alone, for it names a folder")
    return name


FileName = Annotated[str, AfterValidator(_check_file_name), WithJsonSchema({"type": "string", "pattern": FILE_NAME})]
AtLeastOne = Annotated[int, Field(ge=1)]
# Checked by `components.check_amount`: the schedules are kinds of a room.
Amount = Annotated[Any, place_of("amount")]
Rate = Annotated[Any, place_of("rate")]
