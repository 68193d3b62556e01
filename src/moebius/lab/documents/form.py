"""What the forms of files share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class Form(BaseModel):
    """Keys and types of a JSON object. Further keys may be there; a text is no number, and numbers are finite."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, protected_namespaces=())


# The name of a folder inside a study's.
FolderName = Annotated[str, StringConstraints(pattern=r"^[^/\\\x00]{1,200}$"), Field(description="a name")]
Count = Annotated[int, Field(ge=0, le=2**53)]
# Experts, classes, domains: what tables and figures have a line for.
Width = Annotated[int, Field(ge=0, le=1_000_000)]
Figures = dict[str, float | None]
