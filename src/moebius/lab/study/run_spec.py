"""The description of one run: a variant, or a stage, at a seed."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moebius.lab.data.held_out_rows import TrainedRows

# What is learned unless a recipe says otherwise.
DEFAULT_TASK = {"kind": "classification"}


@dataclass(frozen=True)
class RunSpec:
    """One variant, or one stage, at one seed.

    Arguments:
        variant, seed: name of the variant, or of the stage, and the seed.
        folder: of the run.
        model: for `build_model`.
        training: for `Settings`, with the precision decided.
        precision_reason: the reason for the precision.
        stages: name → description, as for `moebius.lab.model.build.StageNetworks`, of each stage that the run uses,
            directly or through others.
        folders: name → folder of the run at this seed, of each of these stages.
        rows: for a stage, the arguments of `moebius.lab.data.select_rows.select_rows`; None for a variant.
        labels: for a stage, the classes that its labels count, as for `moebius.lab.model.resolve.resolve`.
        task: what is learned: the kind and keywords of a task.
        scale: of the pixels that the model gets.
        trained: the rows that it is trained on: "train", "held_out", or {"cross_fit": K}.
    """

    variant: str
    seed: int
    folder: Path
    model: Mapping[str, Any]
    training: Mapping[str, Any]
    precision_reason: str
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    folders: Mapping[str, Path] = field(default_factory=dict)
    rows: Mapping[str, Any] | None = None
    labels: Sequence[int] | None = None
    task: Mapping[str, Any] = field(default_factory=lambda: dict(DEFAULT_TASK))
    scale: str = "unit"
    trained: TrainedRows = "train"

    @property
    def selects(self) -> Mapping[str, Any] | None:
        """The arguments of `select_rows` for the run's rows; None for all rows as they are."""
        return {"trained": "held_out"} if self.rows is None and self.trained == "held_out" else self.rows

    @property
    def name(self) -> str:
        """VARIANT/seed-N, as in messages; also the folder of a variant's run in the study's folder."""
        return f"{'' if self.rows is None else 'stage '}{self.variant}/seed-{self.seed}"

    @property
    def result_path(self) -> Path:
        """The file that exists when the run is finished."""
        return self.folder / "result.json"

    @property
    def is_finished(self) -> bool:
        """Whether the run has left all its files."""
        names = ["result.json", "model.safetensors", *(["routing.parquet"] if self.rows is None else [])]
        return all((self.folder / name).exists() for name in names)

    @property
    def draws(self) -> int:
        """The seed of its random numbers: it differs between stages, so that equal networks do not begin alike."""
        return self.seed if self.rows is None else zlib.crc32(f"{self.variant}/{self.seed}".encode())
