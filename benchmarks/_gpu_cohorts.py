"""Part `cohorts` of `gpu.py`: `stacked_runs.py` on the GPU, model by model."""

from types import SimpleNamespace

import stacked_runs
from _compare import Measurement
from _gpu_conditions import Conditions, Item


def make_items(conditions: Conditions) -> dict[str, Item]:
    """An item for each model; dry, only those of study 1."""
    models = {name: model for name, model in stacked_runs.MODELS.items() if not conditions.dry or name == "1 linear"}
    options = SimpleNamespace(device=conditions.device, steps=30, runs=[1, 5, 10, 20], rounds=3)
    if conditions.dry:
        options = SimpleNamespace(device="cpu", steps=1, runs=[1, 2], rounds=1)

    def make_item(name: str, model: dict) -> Item:
        def measure() -> tuple[list[Measurement], dict]:
            return stacked_runs.measure(name, model, options), {}

        return measure

    return {name: make_item(name, model) for name, model in models.items()}
