import pandas as pd
import torch

from moebius.lab.data import load_sets
from moebius.lab.data.sources import CSV, Parquet


def test_it_gives_what_the_same_table_in_text_gives(tmp_path):
    frame = pd.DataFrame(
        {
            "age": [20.0, None, 31.5, 40.0, 28.25] * 10,
            "city": ["Rome", "Oslo", None, "Oslo", "Rome"] * 10,
            "bought": [0, 1, 1, 0, 1] * 10,
        }
    )
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    sources = (Parquet(str(tmp_path / "rows.parquet"), "bought"), CSV(str(tmp_path / "rows.csv"), "bought"))
    first, second = (load_sets([source], 8) for source in sources)
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.test.labels, second.test.labels)
    assert sources[0].name == "rows"
    assert sources[0].open().identity != sources[1].open().identity
