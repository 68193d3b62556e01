"""Local parquet files (shards) in the hub's layout: `train-00000-of-00001.parquet`, `test-*.parquet`."""

import re
from pathlib import Path

from moebius.kit.errors import DataError


def find_shards(folder: Path, split: str) -> list[Path]:
    """The files of a split in `folder`, in order; an empty list where there are none.

    Arguments:
        folder: the folder that holds the files; it may be missing.
        split: name of the split, with which the files' names begin.

    Raises:
        DataError: the folder holds fewer or more files than their names count ("-of-00002").
    """
    if not folder.is_dir():
        return []
    paths = sorted(path for path in folder.iterdir() if re.fullmatch(rf"{re.escape(split)}(-.*)?\.parquet", path.name))
    for path in paths:
        total = re.search(r"-of-(\d+)\.parquet$", path.name)
        if total and int(total[1]) != len(paths):
            raise DataError(
                f"{folder}: {split} has {len(paths)} of {int(total[1])} parquet files", "download the files again"
            )
    return paths
