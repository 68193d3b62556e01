from moebius.lab.report.text_columns import text_columns


def test_numbers_stand_to_the_right_and_texts_to_the_left():
    lines = text_columns(["model", "p"], [["a", "<.001"], ["long name", ".5"], ["b", "–"]])
    assert lines == ["  model          p", "  a          <.001", "  long name     .5", "  b              –"]


def test_one_column_is_cut_where_lines_are_too_long():
    rows = [["1", "x" * 100, ".5"], ["2", "y", ".25"]]
    lines = text_columns(["expert", "says", "loss"], rows, 40, "says")
    assert max(map(len, lines)) == 40
    assert "x…" in lines[1]
    assert all(len(line) > 40 for line in text_columns(["expert", "says", "loss"], rows[:1], 40)[1:])


def test_names_go_on_in_the_next_line_and_stay_apart():
    rows = [["unit-variance", ".5"], ["unit-variance-literal", ".25"], ["a", "1"]]
    lines = text_columns(["variant", "a figure of some width"], rows, 42, folded="variant")
    assert max(map(len, lines)) <= 42
    names = ["".join(line[2:19].split()) for line in lines]
    assert "…" not in "".join(lines)
    assert names[1:] == ["unit-variance", "unit-variance-li", "teral", "a"]
