"""The diagnosis of a model that `mb.fit` has trained, from rows that it was not trained on."""

from moebius.kit.errors import ArgumentError
from moebius.lab.doctor.diagnose import diagnose_split
from moebius.lab.doctor.diagnosis import Diagnosis
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.outcome import Trained


def diagnose_fitted(trained: Trained, rows: int, baseline: bool = False) -> Diagnosis:
    """What the gates and experts of a trained model suffer from.

    Arguments:
        trained: the outcome of `mb.fit`, with held-out rows or test rows.
        rows: how many are looked at.
        baseline: as for `diagnose`.

    Raises:
        ArgumentError: there are no such rows, or the outcome is none of `mb.fit`.
    """
    origin, model = trained.origin, trained.model
    if origin is None:
        rule = "needs the outcome of mb.fit"
        raise ArgumentError("diagnose", rule, type(model).__name__, "moebius diagnose FOLDER-OF-THE-RUN")
    data = origin.data
    split = data.validation or (data.test if data.has_test else None)
    if split is None:
        rule = "needs rows that the model was not trained on"
        raise ArgumentError("diagnose", rule, "training rows alone", "mb.diagnose(fitted.model, (x_test, y_test))")
    task = origin.task.for_model(model).for_data(data.train.labels)
    names = {"class": data.classes, "domain": data.domains}
    call = ModelCall(model, precision="bf16" if origin.precision == "bf16" else "fp32")
    return diagnose_split(call, task, split, names, rows, train=data.train if baseline else None)
