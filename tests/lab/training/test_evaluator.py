import pytest

from moebius.lab.training.loop import Trainer


def test_what_another_has_looked_at_is_not_looked_at_again(small_data, settings, build, tmp_path):
    data = small_data(validation_rows=40)
    examiner = Trainer(build(data), data, settings(), 0, tmp_path).evaluator
    # What came out on another split stands in, so that one sees where a figure is from.
    known = {"test": examiner.evaluate("validation"), "training": examiner.evaluate("test")}
    assert examiner.evaluate("test", evaluations=known) is known["test"]
    entry = examiner.epoch_entry(1, {}, evaluations=known)
    assert entry["test"]["loss"] == entry["validation"]["loss"] == known["test"].loss
    trained = examiner.build_outcome([entry], 1, evaluations=known)
    assert (trained.train, trained.test) == (known["training"], known["test"])
    assert trained.validation is not known["test"]
    assert trained.one_expert is not None
    assert trained.one_expert.loss != pytest.approx(known["test"].loss)
