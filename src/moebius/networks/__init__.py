"""The network bodies that gates and experts share: dense layers, and convolutions under dense layers."""

from moebius.networks.activations import ACTIVATIONS, NEVER_FALLING, Activation, activation_named
from moebius.networks.conv_net import ConvNet
from moebius.networks.dense import Dense
from moebius.networks.vgg import VGG

__all__ = ["ACTIVATIONS", "NEVER_FALLING", "VGG", "Activation", "ConvNet", "Dense", "activation_named"]
