"""The file `error.json` of a run that has failed."""

from moebius.lab.documents.form import Form


class ErrorFile(Form):
    """What ended a run."""

    message: str
    fix: str | None = None
    diverged: bool = False
