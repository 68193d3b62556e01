"""The rows of each expert that a run leaves: which they are, what they look like, and that the file stays small."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from moebius.lab.data.split import Dataset, Split
from moebius.lab.data.tables.columns import TableColumns
from moebius.lab.data.tables.hold_out import HoldOut
from moebius.lab.data.tables.table import Table
from moebius.lab.report.source import read_study
from moebius.lab.report.tables import tabulate
from moebius.lab.study import run
from moebius.lab.study.example_rows import BYTES, SIDE, example_rows
from moebius.lab.study.run_rows import load_run_data
from moebius.lab.training.evaluation import Evaluation


@pytest.fixture(scope="module")
def study(small_recipe, tmp_path_factory):
    recipe = small_recipe("variants={linear: {experts: {count: 3}}}")
    out = tmp_path_factory.mktemp("examples") / "study"
    run(recipe, out, workers=1)
    return out, load_run_data(out / "linear" / "seed-0")


def picked_by_pandas(folder):
    """(expert, kind) → rows, from routing.parquet alone."""
    frame = pd.read_parquet(folder / "routing.parquet")
    frame = frame[frame["split"] == "test"].reset_index(drop=True)
    weights = frame[["gate_0", "gate_1", "gate_2"]]
    picked = {}
    for expert in range(3):
        of_expert = frame[weights.idxmax(axis=1) == f"gate_{expert}"].sort_values(f"gate_{expert}", ascending=False)
        wrong = of_expert[of_expert["label"] != of_expert["prediction"]].sort_values("loss", ascending=False)
        rest = of_expert.iloc[5:]
        picked |= {(expert, "most"): of_expert.head(5), (expert, "least"): rest.iloc[::-1].head(5)}
        picked[expert, "wrong"] = wrong.head(5)
    return frame, {key: [*rows["row"]] for key, rows in picked.items() if len(rows)}


def test_pictures_are_the_rows_that_routing_names_and_the_datas_pixels(study):
    out, data = study
    folder = out / "linear" / "seed-0"
    frame, picked = picked_by_pandas(folder)
    file = load_file(folder / "examples.safetensors")
    kinds = ("most", "least", "wrong")
    written: dict = {}
    for row, expert, kind in zip(file["rows"], file["experts"], file["kinds"], strict=True):
        written.setdefault((int(expert), kinds[kind]), []).append(int(row))
    assert written == picked
    assert np.array_equal(file["images"], data.test.images[torch.from_numpy(file["rows"]).long()].numpy())

    page = (out / "report.html").read_text()
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', page)
    assert len(pictures) == len(file["rows"])
    for (url, alt), row, expert in zip(pictures, file["rows"], file["experts"], strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(url))))
        assert np.array_equal(pixels, data.test.images[int(row), 0].numpy())
        line = frame.iloc[int(row)]
        name = data.classes[int(line["label"])]
        domain = data.domains[int(line["domain"])]
        assert alt.startswith(name if name.startswith(domain) else f"{domain} {name}")
        assert ("predicted" in alt) == (line["label"] != line["prediction"])
        weight = float(alt.rpartition("weight ")[2].replace("<", ""))
        assert weight == pytest.approx(line[f"gate_{expert}"], abs=0.011)


def test_runs_without_the_file_have_no_such_section(study, tmp_path):
    from moebius.lab.report.sections import pictures

    out, _ = study
    content = (out / "linear" / "seed-0" / "examples.safetensors").read_bytes()
    tables = tabulate(read_study(out))
    assert pictures.section(tables) is not None
    (out / "linear" / "seed-0" / "examples.safetensors").unlink()
    assert pictures.section(tables) is None
    (out / "linear" / "seed-0" / "examples.safetensors").write_bytes(content)


def evaluation(weights, labels, predictions):
    right = labels == predictions
    columns = (labels, torch.zeros(len(labels), dtype=torch.long), predictions, None, 1 - right.float(), right)
    return Evaluation(*columns, {"gate": weights})


def dataset(inputs, columns=None):
    labels = torch.arange(len(inputs)) % 2
    split = Split(inputs, labels, torch.zeros(len(inputs), dtype=torch.long))
    return Dataset(split, None, split, ("a", "b"), ("set",), "", columns)


@pytest.mark.parametrize(("experts", "channels", "size"), [(64, 3, 64), (2, 3, 224), (10, 1, 28), (20, 1, 8)])
def test_pixels_are_bounded_whatever_experts_and_sizes(experts, channels, size):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (900, channels, size, size), dtype=torch.uint8, generator=generator)
    weights = torch.rand(900, experts, generator=generator).softmax(1)
    data = dataset(images)
    example = example_rows(data, evaluation(weights, data.test.labels, torch.zeros(900, dtype=torch.long)))
    assert example is not None
    assert example[0]["images"].numel() <= BYTES
    assert max(example[0]["images"].shape[2:]) <= SIDE
    assert len(example[0]["experts"].unique()) == min(experts, {64: 6, 20: 16}.get(experts, experts))
    assert set(example[0]["kinds"].tolist()) == {0, 1, 2}


def test_a_gate_that_prefers_nobody_picks_nothing():
    data = dataset(torch.zeros(10, 1, 8, 8, dtype=torch.uint8))
    level = evaluation(torch.full((10, 2), 0.5), data.test.labels, data.test.labels)
    assert example_rows(data, level) is None


def test_cells_are_those_of_the_table(tmp_path):
    frame = pd.DataFrame({"size": [1.5, 3.0, None, 8.25], "color": ["red", None, "blue", "red"]})
    targets = pd.DataFrame({"kind": ["a", "b", "a", "b"]})
    columns = TableColumns.fit(Table(frame, ("color",), targets, ("classes",), HoldOut(), 0.2, "example"))
    data = dataset(columns.encode(frame), columns)
    weights = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    example = example_rows(data, evaluation(weights, data.test.labels, data.test.labels))
    assert example is not None
    cells = pd.read_json(io.StringIO(example[1]["cells"]), typ="series")
    assert cells["columns"] == ["size", "color"]
    assert cells["rows"] == [["1.5", "red"], ["3", "missing or new"], ["missing", "blue"], ["8.25", "red"]]


def test_a_row_of_few_numbers_is_shown_as_it_is(tmp_path):
    import moebius as mb

    torch.manual_seed(0)
    x = torch.rand(120, 3)
    moe = mb.Mixture(mb.gates.Linear(3, 2), [torch.nn.Linear(3, 2) for _ in range(2)])
    fitted = mb.fit(moe, (x, (x[:, 0] > 0.5).long()), test=(x, (x[:, 0] > 0.5).long()), epochs=2, progress=False)
    page = fitted.report(tmp_path / "report").read_text()
    with safe_open(tmp_path / "report" / "Mixture" / "seed-0" / "examples.safetensors", framework="numpy") as file:
        rows = file.get_tensor("rows")
    assert "The rows of each expert" in page
    assert all(f"<td>{float(x[row, 2]):.4g}</td>" in page for row in rows.tolist())
