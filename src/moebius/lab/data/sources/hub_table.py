"""Tables of the Hugging Face hub, downloaded by name or read from a local folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moebius.kit.errors import ArgumentError
from moebius.lab.data.raw import Raw, check_text, hash_content
from moebius.lab.data.tables.table import Table, TableOptions, TableSource


class HubTable(TableSource):
    """A table of the Hugging Face hub, named as it is on the hub: numbers, categories, and a target to predict.

    One split is read, of which rows are held out as those of kind `csv` are; columns become features as there. Image
    sets of the hub are of kind `hub`. A table is the only set of its data.

    Arguments:
        name: "organisation/set", as the hub spells it; or a local folder that `datasets.load_dataset` reads.
        target: name of the column to predict, or a list of several names.
        columns: names of the columns that the model sees; null = all but targets, group, time and domain.
        drop: names of columns that the model does not see.
        categories: names of columns whose numbers are categories.
        numbers: names of columns whose text has to be numbers; a value that is none is refused with its row.
        target_type: classes or numbers; null = classes for text, truth values, and at most 20 different whole numbers.
            For several targets a mapping from some of their names.
        test: share of the rows to test on, the same share of each class, strictly between 0 and 1.
        group: name of a column: rows with one value are all trained on or all tested on. The model does not see it.
        time: name of a column of numbers or dates: the latest rows are tested on. The model does not see it.
        seed: of the random choice of test rows, at least 0.
        domain: name of a column: rows with one value are a domain. The model sees it only where `columns` names it.
        config: name of the set's configuration; null = the default one.
        revision: branch, tag or commit on the hub; null = the newest.
        split: name of the split to read.

    Raises:
        ArgumentError: an empty name or target, a share that does not lie between 0 and 1, or options that exclude each
            other.

    Example:
        >>> HubTable("scikit-learn/adult-census-income", target="income").name
        'adult-census-income'

    Reference: Lhoest et al. 2021, Datasets: A Community Library for Natural Language Processing.
    """

    def __init__(
        self,
        name: str,
        target: str | Sequence[str],
        columns: Sequence[str] | None = None,
        drop: Sequence[str] = (),
        categories: Sequence[str] = (),
        numbers: Sequence[str] = (),
        target_type: str | Mapping[str, str] | None = None,
        test: float = 0.2,
        group: str | None = None,
        time: str | None = None,
        seed: int = 0,
        domain: str | None = None,
        config: str | None = None,
        revision: str | None = None,
        split: str = "train",
    ):
        self.path = check_text("name", name).rstrip("/")
        self.name = self.path.rsplit("/", 1)[-1]
        if not self.name:
            raise ArgumentError("name", "must be the name of a set on the hub", name, "name: organisation/set")
        names = (None if columns is None else tuple(columns), tuple(drop), tuple(categories), tuple(numbers))
        targets = target if isinstance(target, str) else tuple(target)
        self.options = TableOptions(targets, *names, target_type, test, group, time, seed, domain)
        self.config, self.revision, self.split = config, revision, split

    @property
    def domain_count(self) -> int | None:
        """The number of domains: 1, or unknown where a column tells them."""
        return 1 if self.options.domain is None else None

    def open(self, data_dir: Path | None = None) -> Raw:
        """Find the files on the hub, or in a local folder of this name below `data_dir` where there is one."""
        from moebius.lab.data.remote import load_splits

        local = None if data_dir is None else data_dir / self.name
        path = str(local) if local is not None and local.is_dir() else self.path
        (rows,) = load_splits(path, self.config, self.revision, (self.split,))
        files = [Path(file["filename"]) for file in rows.cache_files]

        def read() -> Table:
            from moebius.lab.data.tables.make_table import make_table

            frame: Any = rows.to_pandas()
            return make_table(frame, self.options, self.path)

        return Raw(hash_content(files, "hub_table", self.options, self.split, len(rows)), read)
