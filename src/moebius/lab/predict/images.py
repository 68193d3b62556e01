"""Predictions of a finished run for image files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.commands import command
from moebius.kit.errors import DataError, StudyError
from moebius.lab.data.batches import scale_pixels
from moebius.lab.data.picture import read_image
from moebius.lab.data.scale import PixelScale
from moebius.lab.documents import ModelData, check_form
from moebius.lab.predict.forward import computable, context_of_domain, run_rows
from moebius.storage.header import fix_for, read_header
from moebius.storage.load import load
from moebius.tasks import Classification
from moebius.tasks._choice import as_task

# Width of a run's pictures.
MOST_PIXELS = 1 << 14


@dataclass(frozen=True)
class Prediction:
    """The prediction of a run for one image.

    Arguments:
        path: path of the image.
        label: name of the class with the largest probability.
        probability: probability of this class, 0 … 1.
        experts: pairs (expert, gate weight) for the experts of the first of the outermost mixtures whose weight is not
            0, in descending order of weight.
        top: pairs (class name, probability) for the most probable classes, in descending order.
    """

    path: Path
    label: str
    probability: float
    experts: list[tuple[int, float]]
    top: list[tuple[str, float]]


def load_run(run: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Load the trained model of a run.

    Arguments:
        run: folder of the run, OUT/VARIANT/seed-N.

    Returns:
        The model in evaluation mode, and the `task`, `classes`, `domains`, `facts` and `precision` of its training; for
        a table also `columns`, the values of `TableColumns`; for pixels on another scale than [0, 1] also `scale`, the
        values of `moebius.lab.data.PixelScale`.

    Raises:
        StudyError: the folder holds no finished run.
        DataError: the model is damaged, or of moebius 0.1.
    """
    if not (run / "result.json").exists():
        run_folders = sorted(path.parent for path in run.glob("**/result.json"))
        fix = "moebius run quickstart, then runs/quickstart/linear/seed-0"
        if run_folders:
            fix = f"the folder of a run, such as {command(run_folders[0])}"
        raise StudyError(f"{run}: holds no finished run (no result.json)", fix)
    data: Any = read_header(run).get("data")
    check_form(run / "model.safetensors", data, ModelData, fix_for(run))
    return load(run), data


def predict(run: Path, images: Sequence[Path], top: int = 3, domain: str | None = None) -> list[Prediction]:
    """Classify image files with a finished run; they get the colour and the size of the run's data.

    Arguments:
        run: folder of the run, OUT/VARIANT/seed-N.
        images: paths of image files, such as PNG, JPEG, WebP, GIF, BMP or TIFF.
        top: number of most probable classes to return.
        domain: name of the set that the images belong to. The domain gate needs it, because it routes by the set and
            not by the image.

    Raises:
        StudyError: the folder holds no finished run, or one that was trained on a table.
        DataError: an image is missing or broken.
        ArgumentError: the domain is unknown, or missing where the run's gate needs it.
    """
    model, data = load_run(Path(run))
    facts, domains = data["facts"], data["domains"]
    if "size" not in facts:
        rule = f"{run}: was trained on a table, and not on images"
        raise StudyError(rule, command("moebius", "predict", run, "ROWS.csv"))
    with computable(run):
        task = as_task(data["task"]).for_model(model)
    if not isinstance(task, Classification):
        rule = f"{run}: learned {data['task']['kind']}, and only a class of each image is printed here"
        raise StudyError(rule, f"model, data = load_run(Path({str(run)!r})); model(images)")
    x = read_pictures(images, data)
    context = context_of_domain(model, domain, domains, len(x))
    with computable(run):
        outputs, log = run_rows(model, x, context, data["precision"])
        probabilities = task.probabilities(outputs.float())
        outermost = next(path for path, _ in model.named_modules() if path in log)
        weights = log[outermost][-1].weights.unflatten(0, (len(x), -1)).mean(1)
        if probabilities.shape[-1] != len(data["classes"]):
            raise ValueError(f"{len(data['classes'])} names of {probabilities.shape[-1]} classes")
    predictions = []
    for path, row_probabilities, row_weights in zip(images, probabilities, weights, strict=True):
        values, labels = row_probabilities.topk(min(top, len(row_probabilities)))
        best = [(data["classes"][label], value) for label, value in zip(labels.tolist(), values.tolist(), strict=True)]
        order = row_weights.argsort(descending=True).tolist()
        experts = [(expert, row_weights[expert].item()) for expert in order if row_weights[expert] != 0]
        predictions.append(Prediction(Path(path), best[0][0], best[0][1], experts, best))
    return predictions


def read_pictures(images: Sequence[Path], data: Mapping[str, Any]) -> Float[Tensor, "T channels size size"]:
    """Picture files in the colour, the size and the scale of a run's data, as its model takes them.

    Arguments:
        images: paths.
        data: `load_run`'s description of the run.
    """
    facts = data["facts"]
    if not all(isinstance(facts.get(name), int) and 0 < facts[name] <= MOST_PIXELS for name in ("channels", "size")):
        rule = f"its header tells no width of its pictures: {facts.get('size')!r:.60}"
        raise DataError(rule, "a run of images, as it was written")
    color = "grey" if facts["channels"] == 1 else "rgb"
    pixels = torch.stack([read_image(Path(path), facts["size"], color) for path in images])
    return scale_pixels(pixels, scale=PixelScale.from_values(data.get("scale")))
