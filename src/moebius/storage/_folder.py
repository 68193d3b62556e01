"""The folder of a saved mixture: `model.safetensors`, `model.json`, and tensors that wait for their name."""

import hashlib
from pathlib import Path

SCHEMA = 1


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def waiting_path(folder: Path, digest: str) -> Path:
    return folder / f".model-{digest[:16]}.safetensors"
