import pytest

from moebius.kit.errors import ArgumentError
from moebius.lab.data import load_sets
from moebius.lab.data.row_draws import check_rows, count_validation_rows, draw_order
from moebius.lab.data.sources import Digits


def test_every_row_is_drawn_once_and_in_the_same_order():
    assert sorted(draw_order(9).tolist()) == list(range(9))
    assert draw_order(9).tolist() == draw_order(9).tolist() != list(range(9))


def test_a_share_holds_out_as_many_rows_as_its_number(tmp_path):
    by_share = load_sets([Digits()], 8, validation=0.1, cache_dir=tmp_path)
    by_rows = load_sets([Digits()], 8, validation_rows=144, cache_dir=tmp_path)
    assert len(by_share.validation) == round(0.1 * 1438) == 144
    assert by_share.fingerprint == by_rows.fingerprint


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((10, 0.1, 1), "validation"),
        ((10, 0.0, 0), "validation"),
        ((10, 1.5, 0), "validation"),
        ((10, None, 10), "validation_rows"),
        ((1, 0.5, 0), "validation_rows"),
    ],
)
def test_what_leaves_no_row_is_refused(arguments, name):
    with pytest.raises(ArgumentError) as caught:
        count_validation_rows(*arguments)
    assert caught.value.argument == name
    assert caught.value.fix


def test_a_number_of_rows_is_checked():
    check_rows("train_rows", None, 5, "")
    check_rows("train_rows", 5, 5, "")
    for rows in (0, 6):
        with pytest.raises(ArgumentError, match=r"^train_rows: ") as caught:
            check_rows("train_rows", rows, 5, "all rows")
        assert caught.value.fix == "train_rows: null"
