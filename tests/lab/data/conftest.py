import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


def encode_png(value: int, size: int = 4) -> bytes:
    """A square PNG file of one grey level."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size), value, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(
    path: Path, images: list, labels: list, names: list[str] | None = None, column: str = "image"
) -> Path:
    """Write a file in the hub's layout: encoded images, and labels with class names in the schema's metadata."""
    table = pa.table(
        {
            column: pa.array(
                [{"bytes": image, "path": None} for image in images],
                pa.struct({"bytes": pa.binary(), "path": pa.string()}),
            ),
            "label": pa.array(labels),
        }
    )
    if names is not None:
        features = {column: {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


@pytest.fixture
def make_parquet():
    return write_parquet


@pytest.fixture
def make_png():
    return encode_png


@pytest.fixture
def toy_set(tmp_path: Path) -> Path:
    """A data folder with one set, `toy`: four training and two test images, each of one grey level."""
    for split, grey_levels, labels in (("train", (0, 10, 20, 30), [0, 1, 0, 1]), ("test", (40, 50), [1, 0])):
        images = [encode_png(value) for value in grey_levels]
        write_parquet(tmp_path / f"toy/{split}-00000-of-00001.parquet", images, labels, ["dark", "light"])
    return tmp_path
