import numpy as np
import pytest

from moebius.kit.errors import ArgumentError
from moebius.lab.explorer.static_export import telling_rows


def test_the_rows_are_the_worst_and_some_of_all(pictures):
    places = telling_rows(pictures.table, 40)
    frame = pictures.table.frame
    assert len(np.unique(places)) == 40
    assert set(np.argsort(-frame["regret"].to_numpy(), kind="stable")[:10]) <= set(places)
    assert int(frame["loss"].to_numpy().argmax()) in places
    assert places.min() < 10
    assert places.max() > 140
    assert telling_rows(pictures.table, 150).tolist() == list(range(150))


def test_a_folder_holds_all_that_the_page_loads(pictures, tmp_path):
    index = pictures.export(tmp_path / "page", rows=12)
    text = index.read_text()
    assert text.count('<template id="row-') == text.count('<a class="card') == 12
    assert len(list((tmp_path / "page" / "image").iterdir())) == 12
    assert "150" in text[text.index("<dl") : text.index("</dl>")]
    assert "hx-" not in text
    assert "htmx" not in text
    assert sorted(path.name for path in (tmp_path / "page" / "static").iterdir()) == ["explorer.css", "explorer.js"]
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_an_earlier_export_is_replaced_and_other_folders_are_kept(pictures, tmp_path):
    pictures.export(tmp_path / "page", rows=12)
    pictures.export(tmp_path / "page", rows=5)
    assert len(list((tmp_path / "page" / "image").iterdir())) == 5
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("my page")
    with pytest.raises(ArgumentError, match="an earlier export"):
        pictures.export(tmp_path / "mine")
    assert (tmp_path / "mine" / "index.html").read_text() == "my page"
    with pytest.raises(ArgumentError, match="at least 1"):
        pictures.export(tmp_path / "none", rows=0)
