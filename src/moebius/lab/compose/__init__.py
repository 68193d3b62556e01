"""Trained networks in, the mixture that is worth it out: all ways to combine them, judged on rows of their own."""

from moebius.lab.compose.compose import compose as compose
from moebius.lab.compose.composition import Composition as Composition
from moebius.lab.compose.estimator import EstimatorNetwork as EstimatorNetwork
from moebius.lab.compose.networks import as_network as as_network
from moebius.lab.compose.result import Result as Result
