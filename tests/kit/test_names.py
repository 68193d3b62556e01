import json
import unicodedata

import pytest

from moebius.kit.errors import DataError
from moebius.kit.names import check_names, find_fault, printable, safe_cells, shorten

WRONG = ["", " ", "a\x07b", "a\nb", "\x1b[2J", "a\udce9", "a\u202eb", "a\u2028b", "\x9b1m", "a\uffff"]
RIGHT = ["0", "cat", "naïve", "漢字", "ship ⛵", "a b", "-1", "=1+1", "<b>", "x" * 5000]


@pytest.mark.parametrize("name", WRONG)
def test_a_name_that_cannot_be_shown_is_refused(name):
    with pytest.raises(DataError) as caught:
        check_names("class", [*RIGHT, name], "pets\x1b[2J")
    assert str(caught.value).isprintable() or "\n" in str(caught.value)
    assert printable(str(caught.value)) == str(caught.value)
    assert str(caught.value).encode()


def test_other_names_pass():
    check_names("class", RIGHT)
    assert not any(map(find_fault, RIGHT))


def test_a_text_for_a_terminal_has_no_control_character():
    text = "".join(map(chr, range(0x2100))) + "\ud800 \udfff"
    shown = printable(text)
    assert {character for character in shown if unicodedata.category(character) in ("Cc", "Cs")} == {"\n", "\t"}
    assert shown.encode().decode() == printable(shown)
    line = json.dumps({"name": text}, ensure_ascii=False)
    assert json.loads(printable(line)) == {"name": text}


@pytest.mark.parametrize("cell", ["=1+1", "+1", "@SUM(A1)", "\tx", "\r=x", "-x", "-1+cmd|'/c calc'!A1", "-", "--1"])
def test_a_formula_is_no_formula_in_a_cell(cell):
    assert safe_cells([cell]) == [f"'{cell}"]


@pytest.mark.parametrize("cell", ["-1", "-1.5e3", "", "a=b", "'x", 1, -1.5, None, True])
def test_other_cells_stay(cell):
    assert safe_cells([cell]) == [cell]


def test_a_long_text_keeps_its_ends():
    short = shorten("a" * 30 + "b" * 50, 21)
    assert len(short) == 21
    assert short == "a" * 10 + "…" + "b" * 10
    assert shorten("a" * 60) == "a" * 60
