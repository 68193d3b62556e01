"""What a trained run says about single images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from moebius.core.recording import record
from moebius.gates.domain import Domain
from moebius.kit.errors import ArgumentError, StudyError
from moebius.kit.files import read_json
from moebius.lab.data.batches import scale
from moebius.lab.data.picture import read_image
from moebius.lab.model.build import StageNetworks, build_mixture
from moebius.layers.mixture import Mixture
from moebius.storage.tensors import put_tensors


@dataclass(frozen=True)
class Prediction:
    """What a run says about one image.

    Arguments:
        path: of the image.
        label: the class with the largest probability.
        probability: of that class.
        experts: the experts of the root mixture that had a say, with their gate weights, heaviest first.
        top: the likeliest classes with their probabilities.
    """

    path: Path
    label: str
    probability: float
    experts: list[tuple[int, float]]
    top: list[tuple[str, float]]


def load_run(run: Path) -> tuple[Mixture, dict[str, Any]]:
    """The trained mixture of a run's folder (OUT/VARIANT/seed-N), in eval mode, and its description.

    Raises:
        StudyError: the folder holds no finished run.
    """
    if not (run / "result.json").exists():
        inside = sorted(path.parent for path in run.glob("**/result.json"))
        fix = (
            f"a run's folder, such as {inside[0]}"
            if inside
            else "moebius run quickstart, then runs/quickstart/linear/seed-0"
        )
        raise StudyError(f"{run}: holds no finished run (no result.json)", fix)
    description = read_json(run / "model.json")
    model = build_mixture(description["model"], description["facts"], StageNetworks(description.get("stages") or {}))
    put_tensors(model, load_file(run / "model.safetensors"))
    return model.eval(), description


def predict(run: Path, images: Sequence[Path], top: int = 3, domain: str | None = None) -> list[Prediction]:
    """Classify image files with a finished run; they are read as the run's data were (grey or colour, resized).

    Arguments:
        run: the run's folder, OUT/VARIANT/seed-N.
        images: files of any format that Pillow reads.
        top: how many of the likeliest classes to name.
        domain: the set that the images belong to, for pre-designed gates, which are told and cannot see it.

    Raises:
        StudyError: the folder holds no finished run.
        DataError: an image is missing or broken.
        ArgumentError: the run's gate needs a domain and got none, or an unknown one.
    """
    model, description = load_run(Path(run))
    facts, domains = description["facts"], description["domains"]
    color = "grey" if facts["channels"] == 1 else "rgb"
    x = scale(torch.stack([read_image(Path(path), facts["size"], color) for path in images]))
    context = _context(model, domain, domains, len(x))
    with torch.inference_mode(), record(model) as log:
        output = model(x, context)
    probs = output.exp() if getattr(model.combine, "gives_log_probabilities", False) else output.softmax(-1)
    weights = log[""][-1].weights
    predictions = []
    for path, prob, weight in zip(images, probs, weights, strict=True):
        values, classes = prob.topk(min(top, len(prob)))
        best = [(description["classes"][c], v) for c, v in zip(classes.tolist(), values.tolist(), strict=True)]
        order = weight.argsort(descending=True).tolist()
        used = [(expert, weight[expert].item()) for expert in order if weight[expert] != 0]
        predictions.append(Prediction(Path(path), best[0][0], best[0][1], used, best))
    return predictions


def _context(model: Mixture, domain: str | None, domains: Sequence[str], rows: int) -> Mapping[str, torch.Tensor]:
    if domain is None:
        if any(isinstance(module, Domain) for module in model.modules()):
            rule = "must name the set that the images belong to, for this run's gate is told it"
            raise ArgumentError("domain", rule, None, f"--domain {domains[0]}")
        return {}
    if domain not in domains:
        raise ArgumentError("domain", f"needs one of {', '.join(domains)}", domain, f"--domain {domains[0]}")
    return {"domain": torch.full((rows,), domains.index(domain))}
