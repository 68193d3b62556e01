"""Overrides of a recipe on the command line."""

import random
from pathlib import Path

from moebius.lab.recipe.load import load_recipe
from mutations.recipes import BASE, SIGNS, VALUES
from mutations.trials import Entry
from mutations.values import swap_text

KEYS = ["name", "data", "data.sets", "data.sets.0.kind", "data.size", "data.classes", "training", "training.optimizer"]
KEYS += ["model", "model.gate", "model.gate.kind", "model.experts", "model.experts.count", "model.router", "variants"]
KEYS += [
    "variants.linear",
    "variants.linear.experts",
    "seeds",
    "sweep",
    "stages",
    "presets",
    "report",
    "task",
    "²",
    ".",
]
KEYS += ["[0]", "data.train_rows", "data.validation", "training.epochs", "training.batch_size", "training.losses"]
SETTINGS = ["training.epochs=1", "model.experts.count=3", "data.scale=raw", "model.router={kind: top_k, k: 1}"]


class Overrides(Entry):
    """One to three words KEY=VALUE."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.path = folder / "small.yaml"
        self.path.write_text(BASE, encoding="utf-8")

    def mutate(self, draw: random.Random) -> str:
        """Other values of keys, or valid words with changes."""
        self.words = []
        for _ in range(draw.randint(1, 3)):
            word = f"{draw.choice(KEYS)}={draw.choice(VALUES)}"
            self.words.append(word if draw.random() < 0.7 else swap_text(draw.choice(SETTINGS), draw, VALUES, SIGNS))
        return f"overrides {self.words!r}"

    def call(self) -> None:
        """Load the recipe with them."""
        load_recipe(str(self.path), self.words)
