"""A diagnostic with its section is one file, and a section alone is one file; counted by adding one of each."""

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest

DIAGNOSTIC = '''
"""Margin: how far the largest weight is above the second."""

import numpy as np
import pandas as pd

from moebius.lab.report.blocks import Section, Table
from moebius.lab.report.numbers import rate

ORDER = 66


def margin(weights):
    """Mean difference of a row's two largest weights."""
    ordered = np.sort(weights, 1)
    return pd.DataFrame({"margin": [float((ordered[:, -1] - ordered[:, -2]).mean())]})


def table(rows):
    return margin(rows.weights) if rows.weights.shape[1] > 1 else None


def section(study):
    lines = study.table("margin", split="test")
    rows = [[line["variant"], str(line["seed"]), rate(line["margin"])] for _, line in lines.iterrows()]
    return Section("margin", "Margin of the gates", [Table("Margin", ["variant", "seed", "margin"], rows)])
'''
SECTION = '''
"""Greeting: a section without a diagnostic."""

from moebius.lab.report.blocks import Section, Text


def section(study):
    return Section("greeting", "Greeting", [Text(f"hello from {study.name}")])
'''
MEASURES = '''
"""Two measures in one file: each has its table by itself."""

import pandas as pd
from moebius.kit.plugins import register
from moebius.lab.diagnostics import Measure


@register("diagnostics")
class Heaviest(Measure):
    """The largest share of a row."""

    def add_rows(self, rows):
        self.add("largest", rows.shares.amax(1).sum())

    def frame(self):
        return pd.DataFrame({"largest": [float(self.total("largest")) / self.rows], "null": [1 / self.experts]})


@register("diagnostics")
class Wins(Heaviest):
    """It needs what no run writes down."""

    requires = ("outputs",)
'''
BUILD = "import sys; from moebius.lab.report import build; build(sys.argv[1])"


def add_to_the_package(folder):
    (folder / "diagnostics").mkdir()
    (folder / "sections").mkdir()
    (folder / "diagnostics" / "margin.py").write_text(DIAGNOSTIC)
    (folder / "sections" / "greeting.py").write_text(SECTION + "\n\nORDER = 90\n")
    return f"""
import moebius.lab.diagnostics, moebius.lab.report.sections
moebius.lab.diagnostics.__path__.append({str(folder / "diagnostics")!r})
moebius.lab.report.sections.__path__.append({str(folder / "sections")!r})
"""


def add_by_plugin(folder):
    register = "\n\nfrom moebius.kit.plugins import register\nregister('diagnostics'{kind})({name})\n"
    (folder / "my_margin.py").write_text(DIAGNOSTIC + register.format(kind="", name="margin"))
    (folder / "my_greeting.py").write_text(SECTION + register.format(kind=", 'greeting'", name="section"))
    return f"""
from moebius.kit.plugins import load_plugin
load_plugin({str(folder / "my_margin.py")!r})
load_plugin({str(folder / "my_greeting.py")!r})
"""


def add_by_entry_point(folder):
    (folder / "my_margin.py").write_text(DIAGNOSTIC)
    (folder / "my_greeting.py").write_text(SECTION)
    about = folder / "my_distribution-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-distribution\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[moebius.diagnostics]\nmargin = my_margin:margin\ngreeting = my_greeting:section\n"
    )
    return ""


def build_in_new_process(out, code, folder):
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, "-c", code + BUILD, str(out)], capture_output=True, text=True, env=environment
    )


@pytest.mark.parametrize(
    "add",
    [
        add_by_plugin,
        *(pytest.param(add, marks=pytest.mark.thorough) for add in (add_to_the_package, add_by_entry_point)),
    ],
)
def test_one_file_adds_its_table_and_its_section(make_study, tmp_path, add):
    out = make_study(variants={"single": 1, "linear": 2}, seeds=1, epochs=1, rows={"train": 60, "test": 60})
    folder = tmp_path / "additions"
    folder.mkdir()
    process = build_in_new_process(out, add(folder), folder)
    assert process.returncode == 0, process.stderr
    frame = pd.read_csv(out / "tables" / "margin.csv")
    assert list(frame.columns) == ["variant", "seed", "split", "gate", "margin"]
    assert frame[["variant", "split", "gate"]].values.tolist() == [
        ["linear", "train", "gate"],
        ["linear", "test", "gate"],
    ]
    page = (out / "report.html").read_text(encoding="utf-8")
    # Between collapse (65) and the gates over the epochs (70); the section alone before the appendix.
    anchors = ["collapse", "margin", "gates", "greeting", "about"]
    places = [page.index(f'<section id="{anchor}"') for anchor in anchors]
    assert places == sorted(places)
    assert "hello from linear-experts" in page
    assert "tables/margin.csv" in page
    # Without the files the report is what it was.
    shutil.rmtree(folder)
    (out / "tables" / "margin.csv").unlink()
    assert build_in_new_process(out, "", tmp_path).returncode == 0
    assert not (out / "tables" / "margin.csv").exists()
    assert "Margin of the gates" not in (out / "report.html").read_text(encoding="utf-8")


def test_measures_of_a_plugin_have_tables_if_the_rows_have_what_they_read(make_study, tmp_path):
    out = make_study(variants={"linear": 2}, seeds=1, epochs=1, rows={"train": 60, "test": 60})
    path = tmp_path / "measures.py"
    path.write_text(MEASURES)
    load = f"from moebius.kit.plugins import load_plugin\nload_plugin({str(path)!r})\n"
    process = build_in_new_process(out, load, tmp_path)
    assert process.returncode == 0, process.stderr
    frame = pd.read_csv(out / "tables" / "heaviest.csv")
    assert list(frame.columns) == ["variant", "seed", "split", "gate", "largest", "null"]
    assert len(frame) == 2
    assert not (out / "tables" / "wins.csv").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "@register('diagnostics')\ndef a(weights): ...\n@register('diagnostics')\ndef b(weights): ...\n"
            "def table(rows): ...",
            "the diagnostics 'a' and 'b', so that its table could belong to either",
        ),
        (
            "@register('diagnostics')\ndef a(weights): ...\ndef table(rows): return 0.5",
            "diagnostics kind 'a': table(rows) needs to return a DataFrame or None, got 0.5",
        ),
        (
            "from moebius.lab.report.blocks import Section\ndef section(study): return Section('collapse', '', [])\n"
            "register('diagnostics', 'a')(section)",
            "the page has two sections called 'collapse', the second by",
        ),
        (
            "import pandas as pd\n@register('diagnostics')\ndef epochs(weights): ...\n"
            "def table(rows): return pd.DataFrame({'a': [1]})",
            "diagnostics kind 'epochs': the report has another table of this name",
        ),
    ],
)
def test_what_a_file_may_not_do_is_named(make_study, tmp_path, code, message):
    out = make_study(variants={"linear": 2}, seeds=1, epochs=1, rows={"train": 60, "test": 60})
    path = tmp_path / "plugin.py"
    path.write_text("from moebius.kit.plugins import register\n" + code)
    load = f"from moebius.kit.plugins import load_plugin\nload_plugin({str(path)!r})\n"
    process = build_in_new_process(out, load, tmp_path)
    assert process.returncode == 1
    assert message in process.stderr
    assert "fix: " in process.stderr
