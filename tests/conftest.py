"""What tests of all rooms share."""

from pathlib import Path

import pytest
from hypothesis import settings

# The machine may be busy: an example that takes long is no failure. The examples are the same on every run.
settings.register_profile("moebius", deadline=None, derandomize=True, max_examples=30, database=None)
settings.load_profile("moebius")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real MNIST and CIFAR-10, which lies beside the checkout."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    for name in ("mnist", "cifar10"):
        if not list((folder / name).glob("train-*.parquet")):
            pytest.skip(f"the real {name} is not at {folder / name}")
    return folder
