"""The starts of networks: how the weights and biases of dense layers and convolutions are drawn, by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor, nn

from moebius.kit.errors import ArgumentError

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def glorot(weight: Tensor) -> None:
    """Uniform in ±√(6 / (fan_in + fan_out)): Keras' default.

    Reference: Glorot, Bengio 2010, Understanding the Difficulty of Training Deep Feedforward Neural Networks, equation
    16.
    """
    nn.init.xavier_uniform_(weight)


def he(weight: Tensor) -> None:
    """Normal with variance 2 / fan_in, for relu.

    Reference: He, Zhang, Ren, Sun 2015, Delving Deep into Rectifiers, equation 10.
    """
    nn.init.kaiming_normal_(weight)


def lecun(weight: Tensor) -> None:
    """Normal with variance 1 / fan_in.

    Reference: LeCun, Bottou, Orr, Müller 1998, Efficient BackProp, equation 16.
    """
    nn.init.kaiming_normal_(weight, nonlinearity="linear")


def orthogonal(weight: Tensor) -> None:
    """Orthogonal rows, or columns where these are fewer; of a convolution its kernels as rows.

    Reference: Saxe, McClelland, Ganguli 2013, Exact Solutions to the Nonlinear Dynamics of Learning in Deep Linear
    Neural Networks, section 3.
    """
    nn.init.orthogonal_(weight)


# torch's own start is what the layers have when they are made.
STARTS: Mapping[str, Callable[[Tensor], None] | None] = {
    "torch": None,
    "keras": glorot,
    "he": he,
    "lecun": lecun,
    "orthogonal": orthogonal,
}


def start_layers(network: nn.Module, init: str, matrices: Mapping[nn.Module, int] = MappingProxyType({})) -> str:
    """Draw the weights of a network's dense layers and convolutions anew, and set their biases to 0.

    - torch: the layers stay as torch makes them: weights and biases uniform in ±1/√fan_in;
    - keras: `glorot`; he: `he`; lecun: `lecun`; orthogonal: `orthogonal`; each with biases of 0.

    Norms, embeddings and other parameters stay as they are. The order of draws is fixed: torch's start is drawn as the
    layers are made, and then the weights in the order of `network.modules()`.

    Arguments:
        network: with the layers, on any device.
        init: name of the start.
        matrices: layer → number of matrices that lie one above the other in its weight; 1 unless given.

    Returns:
        `init`.

    Raises:
        ArgumentError: there is no such start.

    Example:
        >>> layer = nn.Linear(4, 2)
        >>> start_layers(layer, "keras")
        'keras'
        >>> layer.bias.tolist(), bool((layer.weight.abs() <= 1).all())
        ([0.0, 0.0], True)
    """
    if init not in STARTS:
        raise ArgumentError("init", f"needs one of {', '.join(STARTS)}", init, "init: keras")
    draw = STARTS[init]
    if draw is None:
        return init
    for layer in network.modules():
        if isinstance(layer, LAYERS):
            for matrix in layer.weight.chunk(matrices.get(layer, 1)):
                draw(matrix)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return init
