"""Networks that gates and experts share: of dense layers, of convolutions, and of the columns of tables."""

from moebius.networks.activations import ACTIVATIONS, MONOTONE, Activation, activation_named
from moebius.networks.conv_net import ConvNet
from moebius.networks.dense import Dense
from moebius.networks.starts import STARTS, start_layers
from moebius.networks.table_encoder import TableEncoder
from moebius.networks.table_net import TableNet
from moebius.networks.unet import UNet
from moebius.networks.vgg import VGG

__all__ = [
    "ACTIVATIONS",
    "MONOTONE",
    "STARTS",
    "VGG",
    "Activation",
    "ConvNet",
    "Dense",
    "TableEncoder",
    "TableNet",
    "UNet",
    "activation_named",
    "start_layers",
]
