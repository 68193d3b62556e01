"""A small recipe on data that need no download, and a way to write variations of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = """
name: small
title: A question
data: {sets: [{kind: digits}], size: 8, test_rows: 50}
training: {epochs: 2, optimizer: {kind: adam, lr: 1e-3}}
model:
  gate: {kind: mlp, hidden: [4]}
  experts: {kind: linear, count: 2}
variants:
  shared:
  hidden: {gate: {hidden: [8]}}
  linear: {gate: {kind: linear}}
presets:
  quick: {training.epochs: 1, data.train_rows: 100}
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    """Writes the small recipe, each given text replaced by another, and gives its path."""

    def write(*replacements: tuple[str, str]) -> str:
        text = SMALL
        for old, new in replacements:
            assert old in text, f"{old!r} is not in the small recipe"
            text = text.replace(old, new)
        path = tmp_path / "small.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write
