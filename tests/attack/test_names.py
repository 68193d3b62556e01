"""Names that figures and terminals cannot show, or that a spreadsheet runs: refused where they enter, or escaped."""

import io
import os
import re
from pathlib import Path

import altair as alt
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from moebius.kit.errors import DamagedFileError, DataError
from moebius.lab.cli import app
from moebius.lab.data import load_sets
from moebius.lab.data.raw import Raw
from moebius.lab.data.sources import Folder
from moebius.lab.data.tables.make_table import make_table
from moebius.lab.data.tables.table import TableOptions, TableSource
from moebius.lab.documents import ModelData, ResultsFile, StudyFile, check_form
from moebius.lab.report.figures import Figure, render
from moebius.lab.report.frames import for_spreadsheets

WRONG = ["a\x07b", "a\nb", "\x1b[2J", "a\udce9"]
MODEL = {"task": {"kind": "classification"}, "domains": ["set"], "facts": {}, "precision": "fp32"}


class Rows(TableSource):
    """A table in memory."""

    def __init__(self, frame: pd.DataFrame, name: str = "rows", **options):
        self.frame, self.name, self.options = frame, name, TableOptions("y", **options)

    def open(self, data_dir=None):
        return Raw("rows", lambda: make_table(self.frame, self.options, "rows"))


@pytest.mark.parametrize("name", WRONG)
def test_a_class_folder_is_refused_before_training(name, tmp_path):
    for folder in (b"fine", os.fsencode(name)):
        (tmp_path / "images" / os.fsdecode(folder)).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (2, 2), number).save(tmp_path / "images" / os.fsdecode(folder) / f"{number}.png")
    with pytest.raises(DataError, match=r"images: the class .* holds") as caught:
        load_sets([Folder(str(tmp_path / "images"))], size=2, cache_dir=tmp_path / "cache")
    assert repr(name) in str(caught.value)
    assert list((tmp_path / "cache").rglob("*.safetensors")) == []


@pytest.mark.parametrize("name", WRONG)
def test_a_set_is_refused_by_its_name(name, tmp_path):
    with pytest.raises(DataError, match=r"the set .* holds"):
        load_sets([Folder("images", name=name)], size=2, cache_dir=tmp_path)


@pytest.mark.parametrize("name", WRONG[:3])  # pandas itself has no texts with half of a character
@pytest.mark.parametrize("place", ["column", "category", "class", "domain"])
def test_names_in_a_table_are_refused(place, name):
    frame = pd.DataFrame({"x": range(40), "color": ["red", "blue"] * 20, "y": ["no", "yes"] * 20, "d": ["k", "l"] * 20})
    if place == "column":
        frame = frame.rename(columns={"x": name})
    else:
        column = {"category": "color", "class": "y", "domain": "d"}[place]
        frame[column] = frame[column].replace(frame[column][0], name)
    with pytest.raises(DataError, match=f"rows: the {place} .*holds"):
        load_sets([Rows(frame, domain="d")], size=1)


def test_an_empty_category_is_one():
    frame = pd.DataFrame({"x": range(40), "color": ["red", ""] * 20, "y": ["no", "yes"] * 20})
    assert load_sets([Rows(frame)], size=1).columns.categories[0].categories == ("", "red")
    with pytest.raises(DataError, match="the class '' is empty"):
        load_sets([Rows(frame.replace("yes", ""))], size=1)


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize(
    ("form", "make_value"),
    [
        (ModelData, lambda name: {**MODEL, "classes": [name]}),
        (ModelData, lambda name: {**MODEL, "classes": ["a"], "domains": [name]}),
        (ModelData, lambda name: {**MODEL, "classes": ["a"], "columns": {"categories": [{"name": name}]}}),
        (StudyFile, lambda name: {"data": {"classes": [name]}}),
        (StudyFile, lambda name: {"data": {"domains": [name]}}),
        (ResultsFile, lambda name: {"runs": [{"variant": name, "seed": 0}]}),
        (ResultsFile, lambda name: {"runs": [{"variant": "a", "seed": 0, "metrics": {"test": {name: 1.0}}}]}),
        (ResultsFile, lambda name: {"runs": [{"variant": "a", "seed": 0, "gates": {name: {"experts": 2}}}]}),
    ],
)
def test_names_in_files_from_elsewhere_are_refused(form, make_value, name):
    check_form(Path("file"), make_value("fine"), form, "a fix")
    with pytest.raises(DamagedFileError) as caught:
        check_form(Path("file"), make_value(name), form, "a fix")
    assert str(caught.value).encode()


def test_no_cell_of_a_csv_file_is_a_formula():
    cells = ["=cmd|' /C calc'!A1", "+1", "@x", "-x", "-1", "cat", None]
    frame = pd.DataFrame({"class": cells, "=share": range(7)}, index=[*cells[:-1], "dog"])
    text = for_spreadsheets(frame).to_csv(index_label="row")
    assert re.findall(r"(?m)(?:^|,)\"?([=+@\t]|-(?![\d.]))", text) == []
    assert text.count("'=cmd") == 2
    assert "\ndog,,6\n" in text
    assert frame.columns[1] == "=share"


def test_a_terminal_gets_no_control_character():
    for arguments in (["show", "\x1b[2Jx"], ["predict", "run\x1b]0;x\x07", "a.png"], ["report", "\x9b1mx"]):
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)
        assert result.exit_code == 2
        assert re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", result.output) == []
        assert re.search(r"\\(u00|x)(1b|9b)", result.output)


def test_a_long_name_is_cut_in_figures():
    name = "long " * 1000
    frame = pd.DataFrame({"x": [1], "y": [name]})
    chart = alt.Chart(frame).mark_text().encode(x=alt.X("x", title=name), y=alt.Y("y", title=None), text="y")
    svg, png = render(Figure("long", chart.properties(title=name).facet(row=alt.Row("y", title=name)), "", ""))
    assert max(map(len, re.findall(r">([^<]*)</text>", svg))) < 200
    assert "…" in svg
    with Image.open(io.BytesIO(png)) as image:
        assert max(image.size) < 5000
