"""What one run is: a variant, or a stage, at a seed."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunSpec:
    """One variant, or one stage, at one seed.

    Arguments:
        variant, seed: which; for a stage its name.
        model: for `build_mixture`.
        training: for `Settings.from_plain`, precision decided.
        precision_reason: why that precision.
        stages: of those that it uses, directly or through others, what `moebius.lab.model.build.Stages` is given.
        folders: where their finished runs at this seed lie.
        rows: for a stage, what `moebius.lab.data.select_rows.select` is given; None for a variant.
        folder: of a stage's run; None for a variant, whose folder lies in the study's.
    """

    variant: str
    seed: int
    model: Mapping[str, Any]
    training: Mapping[str, Any]
    precision_reason: str
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    folders: Mapping[str, Path] = field(default_factory=dict)
    rows: Mapping[str, Any] | None = None
    folder: Path | None = None

    @property
    def name(self) -> str:
        """How messages call it: VARIANT/seed-N, which is also a variant's folder."""
        return f"{'' if self.rows is None else 'stage '}{self.variant}/seed-{self.seed}"

    def place(self, out: Path) -> Path:
        """Its folder, in a study's."""
        return out / self.variant / f"seed-{self.seed}" if self.folder is None else self.folder

    @property
    def draws(self) -> int:
        """What its random numbers begin with: a stage has its own, so that equal networks do not begin alike."""
        return self.seed if self.rows is None else zlib.crc32(f"{self.variant}/{self.seed}".encode())
