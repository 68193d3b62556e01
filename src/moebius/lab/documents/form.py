"""What the forms of files share."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from moebius.kit.names import find_fault


class Form(BaseModel):
    """Keys and types of a JSON object. Further keys may be there; a text is no number, and numbers are finite."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, protected_namespaces=())


def _check_name(name: str) -> str:
    fault = find_fault(name)
    if fault is not None:
        raise ValueError(f"the name {name!r:.60} {fault}")
    return name


# Of a class, a data set, an expert: what tables, figures and terminals show.
Name = Annotated[str, AfterValidator(_check_name)]
# The name of a folder inside a study's.
FolderName = Annotated[
    str, StringConstraints(pattern=r"^[^/\\\x00]{1,200}$"), AfterValidator(_check_name), Field(description="a name")
]
Count = Annotated[int, Field(ge=0, le=2**53)]
# Experts, classes, domains: what tables and figures have a line for.
Width = Annotated[int, Field(ge=0, le=1_000_000)]
Figures = dict[Name, float | None]
