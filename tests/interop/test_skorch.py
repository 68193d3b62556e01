"""skorch: a scikit-learn classifier around the models."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

import moebius as mb

skorch = pytest.importorskip("skorch", reason="skorch is not installed: pip install -e '.[dev]'")


class Balance(skorch.callbacks.Callback):
    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        if training:
            mb.step_routers(net.module_)


@pytest.fixture
def classifier(build, name):
    return skorch.NeuralNetClassifier(
        build,
        module__name=name,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        optimizer__eps=1e-3,
        lr=1e-2,
        batch_size=16,
        max_epochs=1,
        train_split=None,
        callbacks=[Balance()],
        verbose=0,
    )


@pytest.fixture
def rows(batch):
    """Those of three steps of a plain loop."""
    x, labels = (torch.cat(parts).numpy() for parts in zip(*map(batch, range(3)), strict=True))
    return x, labels


def test_it_fits_what_a_plain_loop_trains(classifier, rows, model, train, same, batch):
    classifier.fit(*rows)
    train(model)
    same(model.eval(), classifier.module_.eval())
    x, _ = batch(100)
    with torch.no_grad():
        expected = model(x).softmax(-1).numpy()
    np.testing.assert_allclose(classifier.predict_proba(x.numpy()), expected, rtol=1e-5)
    assert (classifier.predict(x.numpy()) == expected.argmax(-1)).all()


@pytest.mark.parametrize("safe", [False, True])
def test_parameters_saved_are_those_loaded(classifier, rows, same, safe, tmp_path):
    classifier.fit(*rows)
    files = {"f_params": tmp_path / "params", "use_safetensors": safe}
    if not safe:
        files |= {"f_optimizer": tmp_path / "optimizer", "f_history": tmp_path / "history"}
    classifier.save_params(**files)
    other = clone(classifier).set_params(module__seed=1).initialize()
    other.load_params(**files)
    same(classifier.module_.eval(), other.module_.eval())
    if not safe:
        same(classifier.partial_fit(*rows).module_, other.partial_fit(*rows).module_)


def test_scikit_learn_clones_it_and_fits_the_clones(classifier, rows):
    copy = clone(classifier)
    assert not copy.initialized_
    scores = cross_val_score(copy.set_params(max_epochs=20), *rows, cv=2, error_score="raise")
    assert (scores > 0.5).all()
