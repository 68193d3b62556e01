"""Named image sets → one uint8 tensor in memory, or a table → rows of float32; then batches."""

from moebius.lab.data.batches import Batch, Batches, ordered_batches, scale_pixels
from moebius.lab.data.load_sets import load_sets
from moebius.lab.data.picture import read_image
from moebius.lab.data.scale import PixelScale
from moebius.lab.data.split import Dataset, Split

__all__ = [
    "Batch",
    "Batches",
    "Dataset",
    "PixelScale",
    "Split",
    "load_sets",
    "ordered_batches",
    "read_image",
    "scale_pixels",
]
