"""Mixtures of experts as estimators of scikit-learn."""

from moebius.sklearn.classifier import MoEClassifier as MoEClassifier
from moebius.sklearn.regressor import MoERegressor as MoERegressor
