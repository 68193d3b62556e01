"""Mixtures as ONNX files, which run where neither torch nor moebius is."""

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from moebius import __version__
from moebius.execution.auto import Auto
from moebius.kit.errors import ArgumentError, MoebiusError
from moebius.kit.files import atomic_path
from moebius.kit.modes import evaluation_mode
from moebius.layers.mixture import Mixture

NEEDED = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
# Numbers of rows that the file is tried with, beside those of the example.
ROWS = (1, 3, 64)
# A file of this format ends below 2 GiB; larger weights lie in a second one beside it.
LARGEST = 2**31 - 2**24


def export(
    model: nn.Module, example: Shaped[Tensor, "T ..."], path: str | Path, tolerance: float | int = 1e-5
) -> float:
    """Write a mixture, or any module that holds some, as an ONNX file for batches of any size, and try it.

    The graph is the model in eval and holds every expert: each runs on every row, and the router's choice is made of
    what they say. So it costs E / k times what the chosen experts alone cost, whatever the mixture's execution is.
    The file's input is `x`, its output `y`, and its opset 20; weights keep the names that they have in the state dict
    where the graph uses them as they are.

    Before the file has its name, onnxruntime runs it on 1, 3 and 64 rows like those of the example, and on these
    themselves, and its outputs are compared with the model's. An existing file is replaced by a whole one or not at
    all. Weights of 2 GiB and more lie beside the file, in `path` with `.data` at the end, which has to go with it.

    Arguments:
        model: a module of one input and one output, both tensors, in float32 or float64; it is left as it was.
        example: some rows, first axis the batch's; their number does not matter, and their other axes are fixed in
            the file. Real ones are best: what is compared are rows close to them.
        path: the file; folders that are missing are made.
        tolerance: the largest difference allowed between outputs of file and model, in units of the model's largest
            output, or absolute where that is below 1.

    Returns:
        The largest difference seen, in these units.

    Raises:
        ArgumentError: no rows, a number format that is not run, a router that hashes rows (ONNX has no wrapping whole
            numbers), or a path where a folder lies.
        MoebiusError: the packages of the extra `export` are missing, the model cannot be written as a graph, or the
            file's outputs differ from the model's.

    Example:
        >>> import tempfile, moebius as mb
        >>> moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 3), nn.Linear(4, 3)], mb.routers.TopK(1))
        >>> path = Path(tempfile.mkdtemp()) / "moe.onnx"
        >>> export(moe, torch.randn(5, 4), path) < 1e-5, path.exists()
        (True, True)
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MoebiusError(f"mb.export needs {' and '.join(missing)}", "pip install 'moebius[export]'")
    path = Path(path)
    _check(model, example, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder,
        _for_export(model),
        torch.no_grad(),
        _quiet(),
    ):
        made = Path(folder) / path.name
        # A graph made of one row would be for one row.
        program = _program(model, example if len(example) > 1 else torch.cat([example, example]))
        weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
        program.save(made, external_data=weights >= LARGEST)
        difference = _tried(model, example, made, tolerance)
        # The data first: from the moment it has its name, the file can be used.
        for file in sorted(Path(folder).iterdir(), reverse=True):
            with atomic_path(path.with_name(file.name)) as temporary:
                file.rename(temporary)
    return difference


def _check(model: nn.Module, example: Tensor, path: Path) -> None:
    if not example.ndim or not len(example):
        raise ArgumentError("example", "needs at least one row", tuple(example.shape), "a batch of real rows")
    formats = {tensor.dtype for tensor in (example, *model.parameters()) if tensor.is_floating_point()}
    unable = formats - {torch.float32, torch.float64}
    if unable:
        rule = "needs numbers in float32 or float64, in which onnxruntime has all operations"
        raise ArgumentError("model", rule, next(iter(unable)), "mb.export(model.float(), example.float(), path)")
    for name, part in model.named_modules():
        if isinstance(part, Mixture) and part.router.needs_keys:
            rule = "has a router that hashes rows, and ONNX lacks the whole numbers for it"
            raise ArgumentError(name or "model", rule, type(part.router).__name__, "torch.export.export")
    if path.is_dir():
        raise ArgumentError("path", "needs the name of a file, and a folder is there", str(path), f"{path}/model.onnx")


@contextmanager
def _for_export(model: nn.Module) -> Iterator[None]:
    """Eval, and an execution that knows how to be exported; afterwards everything as it was."""
    executions = {part: part.execution for part in model.modules() if isinstance(part, Mixture)}
    with evaluation_mode(model):
        try:
            for part in executions:
                part.execution = Auto()
            yield
        finally:
            for part, execution in executions.items():
                part.execution = execution


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the packages say of themselves and of packages that nothing here needs."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`isinstance.treespec", FutureWarning)
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _program(model: nn.Module, example: Tensor) -> Any:
    try:
        program: Any = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: "batch"},),
            input_names=["x"],
            output_names=["y"],
            opset_version=OPSET,
            verbose=False,
        )
    except Exception as error:  # whatever a module of one's own makes torch stumble over
        cause = error.__cause__ or error
        said = next((line for line in str(cause).splitlines() if line.strip()), "")
        rule = f"cannot be written as a graph ({type(cause).__name__}: {said})"
        fix = "find the module with torch.export.export: forwards must not branch on values or on the number of rows"
        raise MoebiusError(f"model: {rule}", fix) from error
    outputs = len(program.model.graph.outputs)
    if outputs != 1:
        raise ArgumentError("model", "needs one tensor as its output", outputs, "a module that picks one")
    for node in program.model.graph.all_nodes():
        # The rest are lines and paths of the machine that wrote the file.
        kept = node.metadata_props.get("namespace")
        node.metadata_props.clear()
        if kept is not None:
            node.metadata_props["namespace"] = kept
    program.model.metadata_props["moebius"] = __version__
    return program


def _tried(model: nn.Module, example: Tensor, path: Path, tolerance: float | int) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for x in (example, *(_like(example, rows) for rows in ROWS)):
        expected = model(x).cpu()
        try:
            (said,) = session.run(None, {"x": x.cpu().numpy()})
        except Exception as error:  # onnxruntime's errors have no common class
            rule = f"onnxruntime cannot run its graph on {len(x)} rows ({error})"
            raise MoebiusError(f"model: {rule}", "torch.export.export, for programs with torch") from error
        given = torch.from_numpy(said)
        if given.shape != expected.shape:
            shapes = f"{tuple(given.shape)}, not {tuple(expected.shape)}"
            fix = "a forward in which no shape depends on the number of rows by other means than x.shape[0]"
            raise MoebiusError(f"model: for {len(x)} rows the file's output has the shape {shapes}", fix)
        difference = _difference(given.double(), expected.double())
        if not difference <= tolerance:
            said = f"outputs of the file differ from the model's by {difference:.1e} on {len(x)} rows, not {tolerance}"
            fix = "a larger tolerance; where two experts' scores nearly tie, rounding alone makes another choice"
            raise MoebiusError(f"model: {said}", fix)
        worst = max(worst, difference)
    return worst


def _like(example: Tensor, rows: int) -> Tensor:
    """So many rows close to the example's; not these again, since among equal rows a choice is arbitrary."""
    x = example[torch.arange(rows, device=example.device) % len(example)]
    if not x.is_floating_point():
        return x
    spread = example.std().nan_to_num() if example.numel() > 1 else example.new_zeros(())
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(rows), dtype=x.dtype).to(x.device)
    return x + 0.1 * torch.where(spread > 0, spread, 1) * noise


def _difference(given: Tensor, expected: Tensor) -> float:
    """The largest difference of finite numbers in units of the largest; infinite where others are unlike."""
    alike = (given == expected) | (given.isnan() & expected.isnan())
    difference = torch.where(alike, 0, (given - expected).abs()).nan_to_num(nan=torch.inf)
    largest = torch.where(expected.isfinite(), expected.abs(), 0)
    return float(difference.max() / largest.max().clamp(min=1)) if difference.numel() else 0.0
