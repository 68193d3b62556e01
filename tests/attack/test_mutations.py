"""Mutated recipes, models, images, tables and studies: each is taken, or one error of moebius says why not."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from mutations import ENTRIES
from mutations.trials import Entry, Hang, try_inputs

sys.path.pop(0)

# Inputs of the sample in `make test`; ten times as many are thorough.
SAMPLES = {
    "recipes": 30,
    "overrides": 40,
    "models": 150,
    "pictures": 300,
    "folders of pictures": 80,
    "parquet files of pictures": 80,
    "tables": 80,
}
SECTIONS = ("sections",)
MOST_MEBIBYTES = 2048


def check(entry, seed, count):
    counts = try_inputs(entry, seed, count)
    print(counts)
    assert counts.failures == []
    assert counts.inputs == count
    assert counts.refused > count / 4
    assert counts.mebibytes < MOST_MEBIBYTES


@pytest.mark.parametrize("name", SAMPLES)
def test_no_mutation_ends_in_a_traceback(name, tmp_path):
    check(ENTRIES[name](tmp_path), 0, SAMPLES[name])


@pytest.mark.thorough
@pytest.mark.parametrize("name", SAMPLES)
def test_no_mutation_of_ten_times_as_many_ends_in_a_traceback(name, tmp_path):
    check(ENTRIES[name](tmp_path), 1, 10 * SAMPLES[name])


def test_a_foreign_study_works_or_is_refused(tmp_path):
    check(ENTRIES["studies"](tmp_path, skipped=SECTIONS), 0, 40)


@pytest.mark.slow
def test_many_foreign_studies_work_or_are_refused(tmp_path):
    check(ENTRIES["studies"](tmp_path), 1, 400)


class Faulty(Entry):
    """An entry that raises what it draws."""

    def mutate(self, draw):
        self.error = draw.choice([None, ValueError("x"), Hang("x"), MemoryError()])
        return "input"

    def call(self):
        if self.error is not None:
            raise self.error


def test_the_count_has_every_other_error(tmp_path):
    counts = try_inputs(Faulty(tmp_path), 0, 40)
    assert counts.refused == 0
    assert 0 < counts.worked < 40
    assert {failure.split(": ")[1] for failure in counts.failures} == {"ValueError", "Hang", "MemoryError"}


def test_a_call_that_does_not_end_is_counted(tmp_path, monkeypatch):
    entry = Faulty(tmp_path)
    monkeypatch.setattr("mutations.trials.MOST_SECONDS", 0.05)
    entry.mutate = lambda draw: "endless"

    def call():
        while True:
            pass

    entry.call = call
    (failure,) = try_inputs(entry, 0, 1).failures
    assert failure.startswith("endless: Hang: ")
