"""Mixtures as ONNX files, which need neither torch nor moebius to run."""

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from moebius import __version__
from moebius.core.routing import Router
from moebius.execution.auto import Auto
from moebius.kit.errors import ArgumentError, MissingExtraError, MoebiusError
from moebius.kit.files import atomic_path
from moebius.kit.modes import evaluation_mode
from moebius.layers.mixture import executed_by

NEEDED = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
# The file is run on these numbers of rows, beside the example.
ROWS = (1, 3, 64)
# A file of this format ends below 2 GiB; larger weights go into a second file beside it.
LARGEST = 2**31 - 2**24


def export(
    model: nn.Module, example: Shaped[Tensor, "T ..."], path: str | Path, tolerance: float | int = 1e-5
) -> float:
    """Write a mixture, or any module that holds some, as an ONNX file for batches of any size, and test the file.

    The graph is the model in evaluation mode with every expert: each expert runs on every row, and the router selects
    among their outputs. So the graph costs E / k times what the selected experts alone cost, whatever the mixture's
    execution is. The file's input is `x`, its output `y`, or the names of several outputs (tasks), and its opset 20;
    weights keep their names of the state dict where the graph uses them as they are.

    Before the file gets its name, onnxruntime runs it on the example and on 1, 3 and 64 rows like it, and its outputs
    are compared with the model's. An existing file is replaced by a complete one or not at all. Weights of 2 GiB and
    more go into a second file beside it, `path` with `.data` at the end, which has to be moved with it.

    Arguments:
        model: a module of one input, a tensor, and of one output or a mapping of names to outputs, in float32 or
            float64; it does not change.
        example: some rows, first axis the batch's; their number does not matter, and the file fixes their other axes.
            Real rows are best: the comparison uses rows close to them.
        path: the file; missing folders are created.
        tolerance: the largest difference allowed between outputs of file and model, in units of the model's largest
            output, or absolute where that is below 1.

    Returns:
        The largest difference, in these units.

    Raises:
        ArgumentError: no rows, a number format that onnxruntime lacks, a router that hashes rows (ONNX has no wrapping
            whole numbers), or a path where a folder lies.
        MissingExtraError: the extra `export` is not installed.
        MoebiusError: the model cannot be written as a graph, or the file's outputs differ from the model's.

    Example:
        >>> import tempfile, moebius as mb
        >>> moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 3), nn.Linear(4, 3)], mb.routers.TopK(1))
        >>> path = Path(tempfile.mkdtemp()) / "moe.onnx"
        >>> export(moe, torch.randn(5, 4), path) < 1e-5, path.exists()
        (True, True)
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"mb.export needs {' and '.join(missing)}", "pip install 'moebius[export]'")
    path = Path(path)
    _check(model, example, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder,
        evaluation_mode(model),
        executed_by(model, Auto()),  # torch cannot export all others
        torch.no_grad(),
        _quiet(),
    ):
        file = Path(folder) / path.name
        # From an example of one row torch would write a graph for one row only.
        example_rows = example if len(example) > 1 else torch.cat([example, example])
        program = _program(model, example_rows, list(_named_outputs(model(example_rows))))
        weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
        program.save(file, external_data=weights >= LARGEST)
        difference = _largest_difference(model, example, file, tolerance)
        # The data first: the file can be used from the moment it has its name.
        for part in sorted(Path(folder).iterdir(), reverse=True):
            with atomic_path(path.with_name(part.name)) as temporary:
                part.rename(temporary)
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
        if isinstance(part, Router) and part.needs_keys:
            rule = "has a router that hashes rows, and ONNX lacks the whole numbers for it"
            layer = name.partition("router")[0].strip(".")
            raise ArgumentError(layer or "model", rule, type(part).__name__, "torch.export.export")
    if path.is_dir():
        raise ArgumentError("path", "needs the name of a file, and a folder is there", str(path), f"{path}/model.onnx")


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress messages of the packages about themselves and about packages that are not needed here."""
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


def _named_outputs(y: Any) -> dict[str, Tensor]:
    """The outputs of a model by their names in the file.

    Raises:
        ArgumentError: they are no tensors, or one is called as the input is.
    """
    outputs = dict(y) if isinstance(y, Mapping) else {"y": y}
    if not outputs or not all(isinstance(name, str) and isinstance(output, Tensor) for name, output in outputs.items()):
        rule = "needs one tensor as its output, or several by name"
        raise ArgumentError("model", rule, type(y).__name__, "a module that returns one of them")
    if "x" in outputs:
        rule = "has an output called x, which is the name of the file's input"
        raise ArgumentError("model", rule, list(outputs), "another name for the output: x_task")
    return outputs


def _program(model: nn.Module, example: Tensor, names: list[str]) -> Any:
    try:
        program: Any = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: "batch"},),
            input_names=["x"],
            output_names=names,
            opset_version=OPSET,
            verbose=False,
        )
    except Exception as error:  # a user's module can make torch raise anything
        cause = error.__cause__ or error
        message = next((line for line in str(cause).splitlines() if line.strip()), "")
        rule = f"cannot be written as a graph ({type(cause).__name__}: {message})"
        fix = "find the module with torch.export.export: forwards must not branch on values or on the number of rows"
        raise MoebiusError(f"model: {rule}", fix) from error
    for node in program.model.graph.all_nodes():
        # The other entries are source lines and paths of the machine that writes the file.
        namespace = node.metadata_props.get("namespace")
        node.metadata_props.clear()
        if namespace is not None:
            node.metadata_props["namespace"] = namespace
    program.model.metadata_props["moebius"] = __version__
    return program


def _largest_difference(model: nn.Module, example: Tensor, path: Path, tolerance: float | int) -> float:
    """The largest difference between outputs of file and model; refuse one above the tolerance."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for x in (example, *(_rows_like(example, rows) for rows in ROWS)):
        expected = _named_outputs(model(x))
        try:
            arrays = session.run(list(expected), {"x": x.cpu().numpy()})
        except Exception as error:  # onnxruntime's errors have no common class
            rule = f"onnxruntime cannot run its graph on {len(x)} rows ({error})"
            raise MoebiusError(f"model: {rule}", "torch.export.export, for programs with torch") from error
        for array, values in zip(arrays, expected.values(), strict=True):
            worst = max(worst, _checked_difference(torch.from_numpy(array), values.cpu(), len(x), tolerance))
    return worst


def _checked_difference(output: Tensor, expected: Tensor, rows: int, tolerance: float | int) -> float:
    """The difference between an output of the file and the model's; refuse one above the tolerance."""
    if output.shape != expected.shape:
        shapes = f"{tuple(output.shape)}, not {tuple(expected.shape)}"
        fix = "a forward in which no shape depends on the number of rows by other means than x.shape[0]"
        raise MoebiusError(f"model: for {rows} rows the file's output has the shape {shapes}", fix)
    difference = _difference(output.double(), expected.double())
    if not difference <= tolerance:
        rule = f"outputs of the file differ from the model's by {difference:.1e} on {rows} rows, not {tolerance}"
        fix = "a larger tolerance; where two experts' scores nearly tie, rounding alone makes another choice"
        raise MoebiusError(f"model: {rule}", fix)
    return difference


def _rows_like(example: Tensor, rows: int) -> Tensor:
    """New rows close to the example's: copies would be equal rows, among which a selection is arbitrary."""
    x = example[torch.arange(rows, device=example.device) % len(example)]
    if not x.is_floating_point():
        return x
    spread = example.std().nan_to_num() if example.numel() > 1 else example.new_zeros(())
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(rows), dtype=x.dtype).to(x.device)
    return x + 0.1 * torch.where(spread > 0, spread, 1) * noise


def _difference(output: Tensor, expected: Tensor) -> float:
    """The largest difference of finite numbers in units of the largest; infinite where NaN or infinity differ."""
    is_equal = (output == expected) | (output.isnan() & expected.isnan())
    difference = torch.where(is_equal, 0, (output - expected).abs()).nan_to_num(nan=torch.inf)
    largest = torch.where(expected.isfinite(), expected.abs(), 0)
    return float(difference.max() / largest.max().clamp(min=1)) if difference.numel() else 0.0
