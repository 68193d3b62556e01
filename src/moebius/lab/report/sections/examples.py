"""A few test rows whose pixels have classes: image, classes, predictions, and the expert that wins each pixel."""

import base64
import io
from pathlib import Path

import altair as alt
import numpy as np
from jaxtyping import UInt8
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file

from moebius.kit.errors import StudyError
from moebius.kit.seals import check_seal
from moebius.lab.report.blocks import Panels, Section, Text
from moebius.lab.report.figures import COLOURS, WIDTH, Figure
from moebius.lab.report.frames import make_frame
from moebius.lab.report.numbers import rate
from moebius.lab.report.queries import figure_name
from moebius.lab.report.run_fix import rewrite_fix
from moebius.lab.report.source import Study

ORDER = 26
# Pixels between two pictures, and the enlargement of a pixel.
GAP, SCALE = 2, 4


def section(study: Study) -> Section | None:
    """The first seed's pictures of every variant that left some."""
    figures = []
    for variant in study.variants:
        first = next(run for run in study.runs if run["variant"] == variant)
        path = study.run_folder(first) / "examples.safetensors"
        arrays = _read(path) if path.is_file() else {}
        if "classes" in arrays:
            figures.append(_figure(study, variant, arrays))
    if not figures:
        return None
    text = (
        "The first test rows, side by side. From above: the image, its classes, the predicted classes and, where a "
        "gate weighs pixels, the expert with the largest weight at each. Classes and experts have colours of their "
        "own; white is the first class, or no class."
    )
    return Section("examples", "Examples", [Text(text), Panels(figures)])


def _read(path: Path) -> dict[str, np.ndarray]:
    check_seal(path, rewrite_fix(path))
    try:
        arrays = load_file(path)
        if "classes" in arrays:
            shape = arrays["classes"].shape
            pixels = [arrays[name] for name in ("classes", "predictions", "experts") if name in arrays]
            images = arrays["images"]
            if len(shape) != 3 or images.ndim != 4 or images.dtype != np.uint8:
                raise ValueError("its tensors are no images")
            if (images.shape[0], *images.shape[2:]) != shape or any(each.shape != shape for each in pixels):
                raise ValueError("its tensors have unlike shapes")
            if not all(np.issubdtype(each.dtype, np.integer) for each in pixels):
                raise ValueError("its tensors are no numbers of classes")
        return arrays
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read ({error})", rewrite_fix(path)) from None


def _figure(study: Study, variant: str, arrays: dict[str, np.ndarray]) -> Figure:
    lines = [_grey(arrays["images"]), _coloured(arrays["classes"], True), _coloured(arrays["predictions"], True)]
    lines += [_coloured(arrays["experts"], False)] if "experts" in arrays else []
    mosaic = _mosaic(lines)
    height, width = mosaic.shape[:2]
    url = _data_url(mosaic)
    chart = alt.Chart(make_frame([(url,)], ["url"])).mark_image(width=WIDTH, height=WIDTH * height / width)
    chart = chart.encode(url="url:N", x=alt.value(WIDTH / 2), y=alt.value(WIDTH * height / width / 2))
    chart = chart.properties(width=WIDTH, height=WIDTH * height / width)
    has_class = arrays["classes"] >= 0
    right = float((arrays["predictions"] == arrays["classes"])[has_class].mean())
    shown = "image, classes, predicted classes" + (", winning experts" if "experts" in arrays else "")
    caption = f"{variant}: {shown}; {rate(right)} of these pixels are right."
    return Figure(figure_name(study, "examples", variant), chart, caption, caption)


def _grey(images: UInt8[np.ndarray, "T channels height width"]) -> UInt8[np.ndarray, "T height width 3"]:
    return np.broadcast_to(images.transpose(0, 2, 3, 1), (*images.shape[:1], *images.shape[2:], 3)).copy()


def _coloured(numbers: np.ndarray, has_background: bool) -> UInt8[np.ndarray, "T height width 3"]:
    """The colour of each number; the first class, and −100 for none, are white."""
    palette = np.array([[int(colour[place : place + 2], 16) for place in (1, 3, 5)] for colour in COLOURS], np.uint8)
    shifted = numbers - 1 if has_background else numbers
    colours = palette[shifted % len(palette)]
    colours[shifted < 0] = 255
    return colours


def _mosaic(lines: list[np.ndarray]) -> UInt8[np.ndarray, "height width 3"]:
    """One line of pictures below the other, enlarged without smoothing."""
    rows = []
    for pictures in lines:
        pictures = pictures.repeat(SCALE, 1).repeat(SCALE, 2)
        framed = np.pad(pictures, ((0, 0), (GAP, GAP), (GAP, GAP), (0, 0)), constant_values=200)
        rows.append(np.concatenate([*framed], 1))
    return np.concatenate(rows, 0)


def _data_url(picture: UInt8[np.ndarray, "height width 3"]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
