"""The estimators under scikit-learn's own checks, and inside its tools."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.sklearn import MoEClassifier, MoERegressor

FAST = {"epochs": 15, "lr": 0.03, "random_state": 0}


@parametrize_with_checks([MoEClassifier(**FAST), MoERegressor(**FAST)])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def test_in_a_pipeline_a_search_and_a_cross_validation():
    X, y = load_iris(return_X_y=True, as_frame=True)
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), MoEClassifier(count=2, **FAST))
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.9
    search = GridSearchCV(MoEClassifier(**FAST), {"count": [1, 2], "router": ["soft", {"kind": "top_k", "k": 1}]}, cv=2)
    search.fit(X, y)
    assert search.best_score_ > 0.9
    assert list(search.best_estimator_.feature_names_in_) == list(X.columns)


def test_classes_keep_their_names_and_probabilities_sum_to_one():
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    classifier = MoEClassifier(count=2, **FAST).fit(X, names)
    assert set(classifier.predict(X)) == set(names)
    np.testing.assert_allclose(classifier.predict_proba(X).sum(1), 1)
    with mb.record(classifier.model_) as log:
        classifier.predict(X)
    assert log[""][0].weights.shape == (150, 2)


@pytest.mark.parametrize("fitted", [True, False])
def test_estimators_behind_a_gate_are_at_least_about_as_good_as_the_best_of_them(fitted):
    X, y = load_breast_cancer(return_X_y=True)
    rows, held_out, labels, truth = train_test_split(X, y, random_state=0, stratify=y)
    experts = [
        make_pipeline(StandardScaler(), LogisticRegression()),
        GaussianNB(),
        RandomForestClassifier(20, random_state=0),
    ]
    experts = [expert.fit(rows, labels) for expert in experts] if fitted else experts
    mixture = MoEClassifier(experts, **FAST).fit(rows, labels)
    if fitted:
        assert [module.estimator for module in mixture.model_.experts] == experts
    best = max(module.estimator.score(held_out, truth) for module in mixture.model_.experts)
    assert mixture.score(held_out, truth) > best - 0.03
    with pytest.raises(ArgumentError, match="which only pickle can keep"):
        mixture.save("nowhere")


def test_regressors_and_modules_behind_a_gate():
    X, y = load_diabetes(return_X_y=True)
    experts = [LinearRegression(), torch.nn.Linear(10, 1), RandomForestRegressor(10, random_state=0)]
    regressor = MoERegressor(experts, **FAST).fit(X, y)
    assert regressor.score(X, y) > 0.5
    assert regressor.predict(X).shape == (442,)
    both = MoERegressor(count=2, **FAST).fit(X, np.stack([y, -y], 1))
    assert both.predict(X).shape == (442, 2)


@pytest.mark.parametrize("make", [MoEClassifier, MoERegressor])
def test_saved_without_pickle_and_loaded(make, tmp_path):
    X, y = load_iris(return_X_y=True, as_frame=True)
    estimator = make(count=2, router={"kind": "top_k", "k": 1}, **FAST).fit(X, y)
    estimator.save(tmp_path / "saved")
    assert not list((tmp_path / "saved").glob("*.pkl"))
    again = make.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict(X), estimator.predict(X))
    with pytest.raises(ValueError, match="feature names"):
        again.predict(pd.DataFrame(X.to_numpy(), columns=list("abcd")))
    other = MoERegressor if make is MoEClassifier else MoEClassifier
    with pytest.raises(ArgumentError, match=f"needs a folder that {other.__name__}.save wrote"):
        other.load(tmp_path / "saved")


def test_a_row_of_weight_two_is_two_rows_and_one_of_weight_zero_is_none():
    X, y = load_diabetes(return_X_y=True)
    X, y, weight = X[:40], y[:40], np.arange(40) % 3
    weighted = MoERegressor(count=2, batch_size=1000, **FAST).fit(X, y, sample_weight=weight)
    repeated = MoERegressor(count=2, batch_size=1000, **FAST).fit(X.repeat(weight, axis=0), y.repeat(weight))
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-6)


def test_other_experts_are_named():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ArgumentError, match="needs kinds, modules or estimators"):
        MoEClassifier([3], **FAST).fit(X, y)
    with pytest.raises(ArgumentError, match="needs at least one expert"):
        MoEClassifier([], **FAST).fit(X, y)
