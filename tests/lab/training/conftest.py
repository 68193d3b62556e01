"""A few real rows, short settings, and runs that are interrupted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from moebius.lab.data.load_sets import load_sets
from moebius.lab.data.sources.digits import Digits
from moebius.lab.data.sources.textures import Textures
from moebius.lab.data.split import Dataset
from moebius.lab.model.build import build_model
from moebius.lab.training.engine import Member
from moebius.lab.training.loop import Loop
from moebius.lab.training.outcome import Event, Trained
from moebius.lab.training.settings import Settings
from moebius.layers.mixture import Mixture

LINEAR = {
    "gate": {"kind": "linear"},
    "experts": {"kind": "linear", "count": 2},
    "combine": {"kind": "log_mixture"},
}


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Dataset]:
    """Digits and textures with so many rows; decoded once."""
    cache = tmp_path_factory.mktemp("cache")

    def load(train_rows: int = 120, test_rows: int = 40, validation_rows: int = 0) -> Dataset:
        sources = [Digits(), Textures(rows_per_class=20)]
        rows = {"train_rows": train_rows, "test_rows": test_rows, "validation_rows": validation_rows}
        return load_sets(sources, size=8, **rows, cache_dir=cache)

    return load


@pytest.fixture
def settings() -> Callable[..., Settings]:
    """Three steps to an epoch of 120 rows, a checkpoint at each; keys of a recipe's `training` change it."""

    def create_settings(**changes: Any) -> Settings:
        plain = {
            "epochs": 2,
            "batch_size": 40,
            "optimizer": {"kind": "adam", "lr": 1e-2},
            "precision": "fp32",
            "checkpoint_seconds": 1e-9,
        }
        return Settings.model_validate({**plain, **changes})

    return create_settings


@pytest.fixture
def build() -> Callable[..., Callable[[], Mixture]]:
    """A builder of a mixture for some data; keys of a recipe's `model` change it."""

    def create_builder(data: Dataset, **changes: Any) -> Callable[[], Mixture]:
        return lambda: build_model({**LINEAR, **changes}, data.facts)

    return create_builder


class Alone(Loop):
    """A loop over a single run, in its folder."""

    def __init__(self, build, data, settings, seed, folder, device="cpu", listen=lambda event: None, **more):
        member = Member(build, settings, seed, folder, listen)
        super().__init__([member], data, folder / "state" / "checkpoint.safetensors", device, **more)
        (self.model,), (self.record,) = self.engine.models, self.records

    def train(self) -> Trained:
        ((_, trained),) = super().train()
        return trained


@pytest.fixture
def alone() -> type[Alone]:
    return Alone


class Stop(Exception):
    """What interrupts a run."""


class Fuse(nn.Module):
    """Passes its input on, and breaks when it is called in training for the `calls`-th time."""

    def __init__(self, calls: int | None):
        super().__init__()
        self.calls = calls

    def forward(self, x):
        if self.training and self.calls is not None:
            self.calls -= 1
            if self.calls < 0:
                raise Stop
        return x


@pytest.fixture
def interrupted() -> Callable[..., Trained]:
    """Trains in a folder; is broken off inside the step after each of `after` many, and goes on each time."""

    def train_in_pieces(
        folder: Path,
        build: Callable[[], Mixture],
        data: Dataset,
        settings: Settings,
        after: tuple[int, ...] = (),
        seed: int = 0,
    ) -> Trained:
        events: list[Event] = []
        for calls in (*after, None):
            fuse = Fuse(calls)

            def build_with_fuse(fuse=fuse) -> Mixture:
                model = build()
                # Not on the gate: one that is not yet trained is in evaluation mode.
                model.register_forward_pre_hook(lambda module, inputs: fuse.train(module.training)(None))
                return model

            torch.manual_seed(1234)  # a new process would not have the old one's random state either
            loop = Alone(build_with_fuse, data, settings, seed, folder, listen=events.append)
            if calls is None:
                trained = loop.train()
                resumed = [event for event in events if event.kind == "resumed"]
                assert len(resumed) == len(after)
                assert all(event.step > 0 for event in resumed)
                return trained
            with pytest.raises(Stop):
                loop.train()
        raise AssertionError

    return train_in_pieces
