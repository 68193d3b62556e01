"""Sets that the `datasets` library loads: from the hub, or from a local folder in a layout that it supports."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import datasets
import datasets.config
import huggingface_hub
import pyarrow as pa

from moebius.kit.errors import DataError
from moebius.lab.data.columns import Columns, find_columns, find_linked_files, table_rows
from moebius.lab.data.raw import Contents, RawRow, RawRows

PROBE_SECONDS = 8.0


def load_splits(
    path: str, config: str | None, revision: str | None, names: tuple[str, ...]
) -> tuple[datasets.Dataset, ...]:
    """Load splits of a set; files of the hub that were downloaded before are not downloaded again.

    Arguments:
        path: "organisation/set" on the hub, or a local folder.
        config, revision: arguments of `datasets.load_dataset`.
        names: names of the splits.

    Raises:
        DataError: the hub cannot be reached, or it has no such set or split.
    """
    name = path.rstrip("/").rsplit("/", 1)[-1]
    try:
        with _offline_if_unreachable(path):
            loaded = datasets.load_dataset(path, config, revision=revision)
    except ConnectionError as error:
        raise DataError(
            f"{path}: the Hugging Face hub cannot be reached, and the set has not been downloaded before",
            f"--data-dir FOLDER, where FOLDER/{name} holds train-*.parquet and test-*.parquet",
        ) from error
    # The hub's clients raise many types; each means that the set cannot be loaded, and its text gives the reason.
    except Exception as error:
        raise DataError(
            f"{path}: the set cannot be loaded ({type(error).__name__}): {error}",
            f"check its name, configuration and splits on the hub, or pass --data-dir FOLDER with FOLDER/{name}",
        ) from error
    for split in names:
        if split not in loaded:
            raise DataError(
                f"{path}: the set has no split called {split!r}, it has {', '.join(map(str, loaded))}",
                "name another split in the recipe (test: validation)",
            )
    return tuple(loaded[split] for split in names)


def read_splits(
    path: str, train: datasets.Dataset, test: datasets.Dataset, image: str | None, label: str | None
) -> Contents:
    """The rows of both splits, before decoding.

    Arguments:
        path: name of the set, for error messages.
        train, test: the splits.
        image, label: names of the columns; None = the columns that `find_columns` finds by their types.

    Raises:
        DataError: a column cannot be found.
    """
    columns = find_columns(train.features, train.data.table.column, path, image, label)
    return Contents(columns.classes, _make_rows(path, train, columns), _make_rows(path, test, columns))


def linked_files(path: str, splits: Iterable[datasets.Dataset]) -> list[Path]:
    """The images that the splits of a set hold by their paths, as the library does for folders of images."""
    folders = _folders(path)
    return [
        file
        for split in splits
        for name in split.data.table.column_names
        for file in find_linked_files(split.data.table, name, folders)
    ]


def _folders(path: str) -> list[Path]:
    """Where images of a set may be: in its local folder, or where the library keeps what it has downloaded."""
    if Path(path).is_dir():
        return [Path(path)]
    config = datasets.config
    places = (config.DOWNLOADED_DATASETS_PATH, config.EXTRACTED_DATASETS_PATH, huggingface_hub.constants.HF_HUB_CACHE)
    return [Path(place) for place in places]


def _make_rows(path: str, split: datasets.Dataset, columns: Columns) -> RawRows:
    folders = _folders(path)

    def iterate() -> Iterator[RawRow]:
        first, table = 0, split.data.table.select([columns.image, columns.label])
        for batch in table.to_batches(max_chunksize=1024):
            yield from table_rows(pa.Table.from_batches([batch]), columns, f"{path} ({split.split})", first, folders)
            first += batch.num_rows

    return RawRows(len(split), iterate)


@contextlib.contextmanager
def _offline_if_unreachable(path: str) -> Iterator[None]:
    """Inside the block the hub's clients use downloaded files only, where the hub does not answer one short request.

    Without this they send six requests for each file, which takes from half a minute to several minutes.
    """
    if huggingface_hub.constants.HF_HUB_OFFLINE or Path(path).is_dir() or _is_reachable(path):
        yield
        return
    before = huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    try:
        huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _is_reachable(path: str) -> bool:
    """Whether the hub answers a request within PROBE_SECONDS."""
    try:
        huggingface_hub.HfApi().dataset_info(path, timeout=PROBE_SECONDS)
    except huggingface_hub.errors.HfHubHTTPError:
        # The hub answers with a refusal, which load_dataset reports in more detail.
        return True
    # The type of the exception for a failed connection depends on the HTTP library.
    except Exception:
        return False
    return True
