"""Networks that gates and experts share: dense layers, and convolutions followed by dense layers."""

from moebius.networks.activations import ACTIVATIONS, MONOTONE, Activation, activation_named
from moebius.networks.conv_net import ConvNet
from moebius.networks.dense import Dense
from moebius.networks.vgg import VGG

__all__ = ["ACTIVATIONS", "MONOTONE", "VGG", "Activation", "ConvNet", "Dense", "activation_named"]
