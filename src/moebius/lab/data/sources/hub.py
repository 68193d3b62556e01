"""Image sets of the Hugging Face hub, downloaded by name or read from a local folder."""

from pathlib import Path

from moebius.kit.errors import ArgumentError, DataError
from moebius.lab.data.raw import Contents, Raw, Source, check_text, hash_content
from moebius.lab.data.shards import find_shards


class Hub(Source):
    """An image set of the Hugging Face hub, named as it is on the hub.

    With a data folder, the files are read from `DATA_DIR/<last part of the name>` or from `DATA_DIR` itself, in the
    hub's layout: `train-00000-of-00001.parquet`, `test-00000-of-00001.parquet`. Without one they are downloaded.

    Arguments:
        name: "organisation/set", as the hub spells it; or a local folder that `datasets.load_dataset` reads.
        image: name of the image column; None = the one whose feature is an image.
        label: name of the label column; None = the one whose feature has class names.
        config: name of the set's configuration; None = the default one.
        revision: branch, tag or commit on the hub; None = the newest.
        train: name of the split to train on.
        test: name of the split to test on.

    Raises:
        ArgumentError: `name` is empty or has no last part.

    Example:
        >>> Hub("ylecun/mnist").name
        'mnist'

    Reference: Lhoest et al. 2021, Datasets: A Community Library for Natural Language Processing.
    """

    def __init__(
        self,
        name: str,
        image: str | None = None,
        label: str | None = None,
        config: str | None = None,
        revision: str | None = None,
        train: str = "train",
        test: str = "test",
    ):
        self.path = check_text("name", name).rstrip("/")
        self.name = self.path.rsplit("/", 1)[-1]
        if not self.name:
            raise ArgumentError("name", "must be the name of a set on the hub", name, "name: ylecun/mnist")
        self.image, self.label, self.config, self.revision = image, label, config, revision
        self.train, self.test = train, test

    def open(self, data_dir: Path | None = None) -> Raw:
        """Find the files in `data_dir`, or on the hub where it is None."""
        return self._open_remote() if data_dir is None else self._open_local(data_dir)

    def _open_local(self, data_dir: Path) -> Raw:
        set_folder = data_dir / self.name
        # A clone of the hub's repository keeps its files in a subfolder with the configuration's name.
        subfolders = sorted(path for path in set_folder.iterdir() if path.is_dir()) if set_folder.is_dir() else []
        folders = (set_folder, *subfolders, data_dir)
        folder = next((folder for folder in folders if find_shards(folder, self.train)), None)
        if folder is None:
            raise DataError(
                f"{self.path}: neither {set_folder} nor {data_dir} holds {self.train}-*.parquet",
                f"put the set's parquet files into {set_folder}, or leave --data-dir out to download them",
            )
        train, test = find_shards(folder, self.train), find_shards(folder, self.test)
        if not test:
            raise DataError(
                f"{self.path}: {folder} holds {self.train}-*.parquet but no {self.test}-*.parquet",
                "add the test files to the folder, or name another split in the recipe (test: validation)",
            )

        def read() -> Contents:
            from moebius.lab.data.parquet import read_parquet

            return read_parquet(train, test, self.image, self.label)

        return Raw(hash_content([*train, *test], "parquet", self.image, self.label, len(train)), read)

    def _open_remote(self) -> Raw:
        from moebius.lab.data.remote import linked_files, load_splits, read_splits

        train, test = load_splits(self.path, self.config, self.revision, (self.train, self.test))
        files = [Path(file["filename"]) for split in (train, test) for file in split.cache_files]
        # The library's files may hold paths of images instead of the images.
        images = linked_files(self.path, (train, test))
        return Raw(
            hash_content([*files, *images], "datasets", self.image, self.label, len(train), str(train.features), files),
            lambda: read_splits(self.path, train, test, self.image, self.label),
        )
