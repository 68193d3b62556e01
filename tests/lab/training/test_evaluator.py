from dataclasses import replace

import torch

from moebius.lab.training.engine import Member
from moebius.lab.training.loop import Loop


def test_held_out_rows_that_stand_for_test_rows_are_evaluated_once_as_what_they_are(
    small_data, settings, build, tmp_path, alone
):
    data = small_data(validation_rows=40)
    same = replace(data, validation=data.test)
    for rows, names in ((data, ["train", "test", "validation"]), (same, ["train", "validation"])):
        evaluator = alone(build(rows), rows, settings(), 0, tmp_path).evaluator
        (evaluations,) = evaluator.evaluate("train", "test", "validation")
        assert [*evaluations] == names


def test_what_an_epochs_end_has_evaluated_is_not_evaluated_again(small_data, settings, build, tmp_path, alone):
    data = small_data(validation_rows=40)
    names = []

    def watched(loop):
        evaluate = loop.evaluator.evaluate
        loop.evaluator.evaluate = lambda *splits: names.append(splits) or evaluate(*splits)
        return loop.train()

    trained = watched(alone(build(data), data, settings(epochs=1), 0, tmp_path))
    assert names == [("test", "validation"), ("train",)]
    names.clear()
    again = watched(alone(build(data), data, settings(epochs=1), 0, tmp_path))
    assert names == [("train", "test", "validation")]
    for split in ("train", "held_out", "test"):
        assert torch.equal(getattr(trained, split).losses, getattr(again, split).losses)


def test_the_runs_of_a_cohort_have_evaluations_of_their_own(small_data, settings, build, tmp_path):
    data = small_data()
    members = [Member(build(data), settings(), seed, tmp_path / str(seed)) for seed in range(2)]
    evaluator = Loop(members, data, tmp_path / "cohort.safetensors").evaluator
    first, second = evaluator.evaluate("test")
    assert first["test"].loss != second["test"].loss
