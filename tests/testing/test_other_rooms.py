"""Each check of schedules, diagnostics and data sources finds the component that breaks it."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import moebius as mb
from moebius.lab.data.raw import Contents, Raw, RawRow, RawRows, Source
from moebius.lab.data.sources import Textures
from moebius.lab.diagnostics._measure import Measure
from moebius.testing import diagnostics, integrations, schedules, sources

COUNT = itertools.count(1)


class Whole(mb.schedules.Constant):
    def __call__(self, epoch):
        return 1


class Remembers(mb.schedules.Constant):
    def __call__(self, epoch):
        return float(next(COUNT))


class Unequal(mb.schedules.Constant):
    __eq__ = object.__eq__
    __hash__ = object.__hash__


class TakesAnything:
    def __init__(self, start: float, end: float):
        self.start, self.end = start, end


SCHEDULES = {
    "gives_a_finite_float_at_every_epoch": (Whole, "gives 1 at epoch 0, no finite float"),
    "depends_on_the_epoch_alone": (Remembers, "other values where epochs come in another order"),
    "equals_a_second_one_of_the_same_arguments": (Unequal, "differs from a second one of the same arguments"),
    "refuses_numbers_that_are_not_finite_by_name": (TakesAnything, "takes start=nan and raises nothing"),
}


def with_gaps(weights):
    return pd.DataFrame({"first": weights[:, 0], "second": np.nan})


def unsorted(weights):
    return pd.DataFrame({"first": weights[:, 0]})


class First(Measure):
    """The first row's weight of each expert.

    first_e = G(x_1)_e

    Range: 0 … 1.
    Null: 1/E.
    """

    null = 0.5

    def add_rows(self, rows):
        if "first" not in self.sums:
            self.add("first", rows.weights[0])

    def frame(self):
        values = self.sums["first"]
        return pd.DataFrame({"expert": range(len(values)), "first": values, "null": self.null})


class LastHalf(First):
    def merge(self, other):
        return other


class ByBatch(First):
    def add_rows(self, rows):
        self.add("first", rows.weights.sum(0) / 100 + 0.01)


class Padded(First):
    def update(self, rows):
        self.add("rows", len(rows))
        self.add("first", rows.probs.nan_to_num().sum(0) + len(rows))


class Numbered(First):
    def add_rows(self, rows):
        self.add("first", torch.arange(rows.experts))


class WithoutNull(First):
    def frame(self):
        return super().frame().drop(columns="null")


DIAGNOSTICS = {
    "gives_a_tidy_table_without_gaps": (with_gaps, "gives a table with missing values"),
    "does_not_depend_on_the_order_of_rows": (unsorted, "depends on the order of rows"),
    "merges_into_the_measure_of_all_rows": (LastHalf, "merges two halves into another table"),
    "does_not_depend_on_the_batches": (ByBatch, "gives another table for the same rows in other batches"),
    "leaves_padding_out": (Padded, "counts padding"),
    "renumbers_its_lines_with_the_experts": (Numbered, "gives other lines for experts in another order"),
    "states_its_formula_range_and_null": (WithoutNull, "without a null"),
}


def test_a_measure_that_reads_one_row_depends_on_their_order(breaks):
    match = "depends on the order of rows"
    breaks(diagnostics.CHECKS, "does_not_depend_on_the_order_of_rows", "diagnostics", First, match)


def test_a_measure_whose_null_is_missing_has_gaps(breaks):
    class Gap(First):
        null = float("nan")

    breaks(diagnostics.CHECKS, "gives_a_tidy_table_without_gaps", "diagnostics", Gap, "missing values")


class Pictures(Source):
    """Four images in two classes."""

    name = "pictures"

    def rows(self):
        return [RawRow(np.full((4, 4), n, np.uint8), n % 2, "pictures", n) for n in range(4)]

    def open(self, data_dir: Path | None = None):
        rows = self.rows()
        train, test = RawRows(2, lambda: rows[:2]), RawRows(2, lambda: rows[2:])
        return Raw("pictures", lambda: Contents(("a", "b"), train, test))


class Nameless(Pictures):
    name = " "


class ByTime(Pictures):
    def open(self, data_dir: Path | None = None):
        return super().open()._replace(identity=str(next(COUNT)))


class Changing(Pictures):
    def rows(self):
        return [row._replace(label=next(COUNT) % 2) for row in super().rows()[:3]] + super().rows()[3:]


class Overflowing(Pictures):
    def rows(self):
        return [row._replace(label=2) for row in super().rows()]


class Floats(Pictures):
    def rows(self):
        return [row._replace(image=row.image / 255) for row in super().rows()]


class InBothSplits(Pictures):
    def rows(self):
        return super().rows()[:2] * 2


SOURCES = {
    "is_a_source_with_a_name": (Nameless, "has the name ' '"),
    "has_the_same_identity_for_the_same_rows": (ByTime, "has another identity when opened again"),
    "reads_the_same_rows_again": (Changing, "gives other rows to train when read again"),
    "labels_rows_by_its_classes": (Overflowing, "gives the label 2, which is none of its 2 classes"),
    "gives_images_and_their_places": (InBothSplits, "gives two rows the same place, or one row to both splits"),
}


class NoFamily:
    def recognises(self, block):
        return False


class TakesAll(mb.integrations.Llama4):
    def recognises(self, block):
        return True


INTEGRATIONS = {
    "is_a_family": (NoFamily, "makes a NoFamily"),
    "recognises_no_other_modules": (TakesAll, r"recognises Linear\(in_features=4"),
}
ROOMS = {
    "integrations": (integrations.CHECKS, INTEGRATIONS),
    "schedules": (schedules.CHECKS, SCHEDULES),
    "diagnostics": (diagnostics.CHECKS, DIAGNOSTICS),
    "data.sources": (sources.CHECKS, SOURCES),
}


@pytest.mark.parametrize("room", ROOMS)
def test_every_check_is_broken(room):
    checks, broken = ROOMS[room]
    assert set(broken) == {check.__name__ for check in checks}


@pytest.mark.parametrize(("room", "name"), [(room, name) for room, (_, broken) in ROOMS.items() for name in broken])
def test_a_broken_component_is_named(breaks, room, name):
    checks, broken = ROOMS[room]
    breaks(checks, name, room, *broken[name])


def test_images_that_are_no_bytes(breaks):
    match = "gives an image of ndarray, needs bytes, a path or an array of uint8"
    breaks(sources.CHECKS, "gives_images_and_their_places", "data.sources", Floats, match)


def test_sources_that_break_nothing():
    sources.check_source(Pictures)
    sources.check_source(Textures, rows_per_class=4)
