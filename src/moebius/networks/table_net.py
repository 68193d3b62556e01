"""A network for rows of a table: an encoder of its columns, then dense layers."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.arguments import positive_widths
from moebius.networks.dense import Dense
from moebius.networks.table_encoder import TableEncoder


class TableNet(nn.Module):
    """Dense layers, residual or not, on the vector that a `TableEncoder` makes of a row.

    Arguments:
        features: D, width of a row.
        cardinalities: for each category column, of which the codes stand last in a row, the number of its codes.
        outputs: width of the last layer, which has no activation.
        hidden: widths of the hidden layers; empty for one dense layer on the encoded row.
        embedding, numeric, bins, frequencies, frequency_scale: as for `TableEncoder`.
        residual: whether each hidden layer but the first adds its input to its output.
        activation: of the hidden layers, one of `ACTIVATIONS`.
        dropout: probability that a value after an activation is set to 0 in training.

    Shapes: x (…, D) → (…, outputs).

    Raises:
        ArgumentError: a value out of its range, widths that differ with residual layers, or an input of another width.
    """

    def __init__(
        self,
        features: int,
        cardinalities: Sequence[int],
        outputs: int,
        hidden: Sequence[int],
        embedding: int,
        numeric: str,
        bins: int,
        frequencies: int,
        frequency_scale: float | int,
        residual: bool,
        activation: str,
        dropout: float | int,
    ):
        super().__init__()
        self.hidden = positive_widths("hidden", hidden) if hidden else ()
        self.encoder = TableEncoder(features, cardinalities, embedding, numeric, bins, frequencies, frequency_scale)
        self.dense = Dense(self.encoder.outputs, self.hidden, outputs, activation, dropout, residual)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "... C"]:
        """The last layer's output for each row."""
        return self.dense(self.encoder(x))
