"""The gate for rows of a table."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.arguments import positive_integer
from moebius.networks import TableNet, start_layers


class Table(nn.Module):
    """The scores of a network for rows of numbers and categories.

    scores = dense layers of [features of the numbers, embedding of each category]

    A row holds the numbers first and the codes of the category columns last. Data sets that are tables have such rows,
    and a recipe leaves `features` and `cardinalities` to them.

    Arguments:
        features: D, width of a row; trailing axes of the input are merged until their product is this.
        experts: E, number of scores per row.
        cardinalities: for each category column the number of its codes, of which 0 is for missing and unseen
            categories; none for rows of numbers alone.
        hidden: widths of the hidden layers; may be empty.
        embedding: width of the embedding of a category; each category column has its own table.
        numeric: what numbers become: plain, they stay as they are; piecewise, a value for each of `bins` quantile bins
            of the training rows; periodic, sines and cosines of trained frequencies.
        bins: of each number, for piecewise.
        frequencies: of each number, for periodic.
        frequency_scale: standard deviation of the frequencies at first, for periodic.
        residual: whether each hidden layer but the first adds its input to its output; their widths are then equal.
        activation: of the hidden layers, one of none, relu, elu, tanh, gelu, silu.
        dropout: probability that a value after an activation is set to 0 in training; other values are scaled up.
        init: how weights and biases begin: torch, keras, he, lecun or orthogonal, see `networks.starts`.

    Shapes: x (…, D) → (…, E).

    Raises:
        ArgumentError: a value out of its range, more category columns than columns, widths that differ with residual
            layers, or an input of another width.

    Example:
        >>> import torch
        >>> rows = torch.tensor([[0.5, -1.0, 2.0], [0.1, 0.3, 0.0]])  # two numbers, and a code 0 … 2
        >>> table = Table(features=3, experts=2, cardinalities=[3], numeric="piecewise")
        >>> table.fit_rows(rows)
        >>> table(rows).shape
        torch.Size([2, 2])

    Reference: Gorishniy, Rubachev, Babenko 2022, On Embeddings for Numerical Features in Tabular Deep Learning, for
        numbers (sections 3.1 and 3.2); Gorishniy, Rubachev, Khrulkov, Babenko 2021, Revisiting Deep Learning Models for
        Tabular Data, for categories and residual layers, here without normalisation.
    """

    def __init__(
        self,
        features: int,
        experts: int,
        cardinalities: Sequence[int] = (),
        hidden: Sequence[int] = (64,),
        embedding: int = 8,
        numeric: str = "plain",
        bins: int = 8,
        frequencies: int = 16,
        frequency_scale: float | int = 0.1,
        residual: bool = False,
        activation: str = "relu",
        dropout: float | int = 0.0,
        init: str = "torch",
    ):
        super().__init__()
        self.features, self.experts = positive_integer("features", features), positive_integer("experts", experts)
        numbers = (embedding, numeric, bins, frequencies, frequency_scale)
        self.network = TableNet(features, cardinalities, experts, hidden, *numbers, residual, activation, dropout)
        self.cardinalities, self.hidden = self.network.encoder.cardinalities, self.network.hidden
        self.embedding, self.numeric, self.bins = embedding, numeric, bins
        self.frequencies, self.frequency_scale = frequencies, frequency_scale
        self.residual, self.activation, self.dropout = residual, activation, self.network.dense.dropout
        self.init = start_layers(self, init)

    def fit_rows(self, rows: Float[Tensor, "T D"]) -> None:
        """Make the bins of piecewise numbers those of these rows; studies and `mb.fit` do it with training rows."""
        self.network.encoder.fit_rows(rows)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "... E"]:
        """The scores of each row."""
        return self.network(x)
