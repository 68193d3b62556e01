"""Local files in the hub's parquet layout: `train-00000-of-00001.parquet`, `test-*.parquet`."""

import re
from pathlib import Path

from moebius.kit.errors import DataError


def shards(folder: Path, split: str) -> list[Path]:
    """The files of a split in `folder`, in order; empty if there are none.

    Raises:
        DataError: when some of the shards that the names count are missing.
    """
    if not folder.is_dir():
        return []
    found = sorted(path for path in folder.iterdir() if re.fullmatch(rf"{re.escape(split)}(-.*)?\.parquet", path.name))
    for path in found:
        counted = re.search(r"-of-(\d+)\.parquet$", path.name)
        if counted and int(counted[1]) != len(found):
            raise DataError(
                f"{folder}: {split} has {len(found)} of {int(counted[1])} parquet files", "download the files again"
            )
    return found
