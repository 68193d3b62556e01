import numpy as np
import pytest

from moebius.kit.errors import ArgumentError
from moebius.lab.explorer.row_query import RowQuery


def test_filters_keep_the_rows_that_match(pictures):
    table, frame = pictures.table, pictures.table.frame
    top = table.gates["gate"].top

    def rows(**values):
        return RowQuery.read({name: str(value) for name, value in values.items()}).places(table).tolist()

    assert rows() == list(range(150))
    assert rows(expert=1) == np.flatnonzero(top == 1).tolist()
    assert rows(group=2, answer="wrong") == np.flatnonzero((table.groups.numbers == 2) & (frame["right"] == 0)).tolist()
    between = (frame["confidence"] >= 0.5) & (frame["confidence"] <= 0.8)
    assert rows(confidence_from=0.5, confidence_to=0.8) == np.flatnonzero(between).tolist()
    assert rows(loss_from=1) == np.flatnonzero(frame["loss"] >= 1).tolist()
    assert rows(regret_from=0.1) == np.flatnonzero(frame["regret"] >= 0.1).tolist()


def test_orders(pictures):
    table = pictures.table
    for order, column, falls in (("largest loss", "loss", True), ("least confident", "confidence", False)):
        values = table.frame[column].to_numpy()[RowQuery(order=order).places(table)]
        assert (np.diff(-values if falls else values) >= 0).all()


def test_rows_without_a_figure_come_last_and_pass_no_bound(table, pictures):
    assert table.table.frame["confidence"].isna().all()
    assert len(RowQuery(confidence_from=0.0).places(table.table)) == 0
    assert (
        np.diff(table.table.frame["error"].to_numpy()[RowQuery(order="largest error").places(table.table)]) <= 0
    ).all()


@pytest.mark.parametrize(
    "values",
    [
        {"expert": "-1"},
        {"page": "x"},
        {"loss_from": "much"},
        {"loss_from": "nan"},
        {"order": "colour"},
        {"answer": "maybe"},
    ],
)
def test_a_query_that_says_nothing_is_refused(values):
    with pytest.raises(ArgumentError, match=next(iter(values))):
        RowQuery.read(values)


def test_an_unknown_gate_is_refused(pictures):
    with pytest.raises(ArgumentError, match="names no gate"):
        RowQuery(gate="nowhere", expert=0).places(pictures.table)


def test_the_text_of_a_query_reads_back():
    query = RowQuery.read({"expert": "0", "order": "largest loss", "regret_from": ".5", "page": "2"})
    from urllib.parse import parse_qsl

    assert RowQuery.read(dict(parse_qsl(query.text()))) == query
    assert RowQuery.read(dict(parse_qsl(query.text(page=3)))).page == 3
