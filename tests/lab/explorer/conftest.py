"""Small models and their explorers; nothing is trained but one table."""

import io
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient
from torch import nn

import moebius as mb
from moebius.lab.explorer import explore_model, explore_run
from moebius.lab.explorer.application import build_application

TOKEN, PORT = "a-token", 4321
CLASSES = ("ant", "bee", "<cow>")


def mixture(features=64, experts=3, classes=3, seed=0):
    """A soft mixture whose gate and experts tell rows apart."""
    torch.manual_seed(seed)
    moe = mb.Mixture(
        mb.gates.Linear(features, experts),
        [mb.experts.Linear(features, classes) for _ in range(experts)],
        combine=mb.LogMixture(),
    )
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return moe.eval()


@pytest.fixture(scope="session")
def picture_rows():
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(256, (150, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return x, torch.randint(3, (150,), generator=generator)


@pytest.fixture(scope="session")
def pictures(picture_rows):
    """A mixture of three experts for grey pictures of three classes."""
    return explore_model(mixture(), picture_rows, classes=CLASSES, title="pictures & rows")


@pytest.fixture(scope="session")
def nested():
    """A mixture whose first expert is a mixture."""
    torch.manual_seed(0)
    inner = mixture(4, 2, 3, seed=2)
    moe = mb.Mixture(
        mb.gates.Linear(4, 3), [inner, mb.experts.Linear(4, 3), mb.experts.Linear(4, 3)], mb.routers.TopK(1)
    )
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(90, 4, generator=generator)
    return explore_model(moe.eval(), (x, torch.randint(3, (90,), generator=generator)))


@pytest.fixture(scope="session")
def table_run(tmp_path_factory):
    """The run of a mixture that has seen a table of two numbers and a category."""
    folder = tmp_path_factory.mktemp("table")
    generator = np.random.default_rng(0)
    size, color = 10 * generator.random(300), generator.choice(["blue", "red"], 300)
    price = np.where(color == "red", 1000.0, 3000.0) + 100 * size
    pd.DataFrame({"size": size, "age": generator.integers(1, 9, 300), "color": color, "price": price}).to_csv(
        folder / "t.csv", index=False
    )
    recipe = {
        "name": "numbers",
        "data": {"sets": [{"kind": "csv", "path": str(folder / "t.csv"), "target": "price"}]},
        "task": "regression",
        "training": {"epochs": 3, "batch_size": 32, "optimizer": {"kind": "adam", "lr": 1e-2}},
        "model": {"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}},
        "variants": {"soft": {}},
    }
    return mb.lab.run(recipe, folder / "study", workers=1) / "soft" / "seed-0"


@pytest.fixture(scope="session")
def table(table_run):
    return explore_run(table_run)


@pytest.fixture
def client(pictures):
    """Requests of a browser that has the token."""
    return browser_of(pictures)


def browser_of(explorer, **options):
    application = build_application(explorer, TOKEN, PORT, **options)
    return TestClient(application, base_url=f"http://127.0.0.1:{PORT}/{TOKEN}/")


@pytest.fixture
def open_client():
    return browser_of


@pytest.fixture
def png():
    """A picture as the bytes of a file."""

    def encode(pixels):
        stream = io.BytesIO()
        Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(stream, "PNG")
        return stream.getvalue()

    return encode


@pytest.fixture(scope="session")
def chromium():
    """A headless browser that is installed already."""
    path = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if path is None:
        pytest.skip("no chromium is installed (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Plain(nn.Module):
    """A network without a mixture."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x)


@pytest.fixture
def plain():
    x = torch.randn(20, 4)
    return explore_model(Plain(), (x, torch.randint(3, (20,))))
