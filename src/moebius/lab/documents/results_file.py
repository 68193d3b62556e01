"""The file `results.json` of a study."""

from typing import Annotated, Any

from pydantic import AfterValidator

from moebius.lab.documents.form import FolderName, Form
from moebius.lab.documents.run_entry import RunEntry


def _of_variant(entry: RunEntry) -> RunEntry:
    if entry.variant is None:
        raise ValueError("needs the key variant")
    return entry


class ResultsFile(Form):
    """The outcome of a study."""

    study: str | None = None
    runs: list[Annotated[RunEntry, AfterValidator(_of_variant)]] | None = None
    stages: list[RunEntry] | None = None
    chosen: dict[str, FolderName] | None = None
    costs: dict[str, dict[str, dict[str, float]]] | None = None
    comparisons: dict[str, Any] | None = None
