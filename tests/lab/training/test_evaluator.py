import pytest

from moebius.lab.training.loop import Trainer


def test_evaluations_that_exist_are_not_computed_again(small_data, settings, build, tmp_path):
    data = small_data(validation_rows=40)
    evaluator = Trainer(build(data), data, settings(), 0, tmp_path).evaluator
    # Evaluations of other splits stand in, so that the origin of each figure is visible.
    evaluations = {"test": evaluator.evaluate("validation"), "training": evaluator.evaluate("test")}
    assert evaluator.evaluate("test", evaluations=evaluations) is evaluations["test"]
    entry = evaluator.epoch_entry(1, {}, evaluations=evaluations)
    assert entry["test"]["loss"] == entry["validation"]["loss"] == evaluations["test"].loss
    trained = evaluator.build_outcome([entry], 1, evaluations=evaluations)
    assert (trained.train, trained.test) == (evaluations["training"], evaluations["test"])
    assert trained.validation is not evaluations["test"]
    assert trained.one_expert is not None
    assert trained.one_expert.loss != pytest.approx(evaluations["test"].loss)
