"""Rows of a table as vectors: numbers plain, piecewise-linear or periodic, and an embedding of each category."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.arguments import flatten_features, positive_integer, positive_number, positive_widths
from moebius.kit.errors import ArgumentError
from moebius.networks.periodic import Periodic
from moebius.networks.piecewise_linear import PiecewiseLinear

NUMERIC = ("plain", "piecewise", "periodic")


class TableEncoder(nn.Module):
    """Rows of numbers and category codes → vectors: features of the numbers, then an embedding for each category.

    A row holds the numbers first and the codes of its category columns last, as floating-point numbers. Each category
    column has an embedding table of its own; all lie in one parameter, one after another. A code that is none of a
    column's counts as 0, the code of missing and unseen categories.

    Arguments:
        features: D, width of a row.
        cardinalities: for each category column the number of its codes; none for rows of numbers alone.
        embedding: width of the embedding of a category.
        numeric: what numbers become: plain, they stay as they are; piecewise, see `PiecewiseLinear`; or periodic, see
            `Periodic`.
        bins: of each number, for piecewise.
        frequencies: of each number, for periodic.
        frequency_scale: standard deviation of the frequencies at first, for periodic.

    Attributes:
        outputs: width of the vectors.

    Shapes: x (…, D) → (…, outputs); trailing axes of the input are merged until their product is D.

    Raises:
        ArgumentError: a number below 1, more category columns than columns, an unknown `numeric`, or an input of
            another width.

    Example:
        >>> encoder = TableEncoder(features=4, cardinalities=[3, 2], embedding=8)
        >>> encoder(torch.tensor([[0.1, -2.0, 2.0, 1.0]])).shape
        torch.Size([1, 18])
    """

    offsets: Tensor
    sizes: Tensor

    def __init__(
        self,
        features: int,
        cardinalities: Sequence[int] = (),
        embedding: int = 8,
        numeric: str = "plain",
        bins: int = 8,
        frequencies: int = 16,
        frequency_scale: float | int = 0.1,
    ):
        super().__init__()
        self.features, self.embedding = positive_integer("features", features), positive_integer("embedding", embedding)
        self.cardinalities, self.numeric = check_cardinalities(cardinalities, features), numeric
        if numeric not in NUMERIC:
            raise ArgumentError("numeric", f"needs one of {', '.join(NUMERIC)}", numeric, "numeric: piecewise")
        self.bins, self.frequencies = positive_integer("bins", bins), positive_integer("frequencies", frequencies)
        self.columns = features - len(self.cardinalities)
        self.frequency_scale = positive_number("frequency_scale", frequency_scale)
        self.numbers: PiecewiseLinear | Periodic | None = None
        if self.columns and numeric == "piecewise":
            self.numbers = PiecewiseLinear(self.columns, bins)
        elif self.columns and numeric == "periodic":
            self.numbers = Periodic(self.columns, frequencies, frequency_scale)
        self.embeddings: nn.Embedding | None = None
        if self.cardinalities:
            self.embeddings = nn.Embedding(sum(self.cardinalities), embedding)
            *starts, _ = accumulate(self.cardinalities, initial=0)
            self.register_buffer("offsets", torch.tensor(starts), persistent=False)
            self.register_buffer("sizes", torch.tensor(self.cardinalities), persistent=False)
        width = self.columns if self.numbers is None else self.numbers.outputs
        self.outputs = width + embedding * len(self.cardinalities)

    def fit_rows(self, rows: Tensor) -> None:
        """Take from the training rows what the encoding needs of them: the bins of piecewise numbers.

        Rows of another width are left alone: this encoder does not get the rows of the data, but the outputs of a
        network before it.
        """
        rows = rows.flatten(1)
        if isinstance(self.numbers, PiecewiseLinear) and rows.shape[1] == self.features:
            self.numbers.fit_rows(rows[:, : self.columns])

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The vector of each row."""
        x = flatten_features(x, self.features)
        parts = [x[..., : self.columns]] if self.columns else []
        if self.numbers is not None:
            parts = [self.numbers(parts[0])]
        if self.embeddings is not None:
            codes = x[..., self.columns :].detach().round().long()
            codes = torch.where((codes >= 0) & (codes < self.sizes), codes, 0)
            parts.append(self.embeddings(codes + self.offsets).flatten(-2))
        return torch.cat(parts, -1) if len(parts) > 1 else parts[0]

    def extra_repr(self) -> str:
        """The arguments that the parts do not show."""
        return f"features={self.features}, cardinalities={list(self.cardinalities)}, numeric={self.numeric}"


def check_cardinalities(cardinalities: Sequence[int], features: int) -> tuple[int, ...]:
    """`cardinalities` as a tuple, if they are whole numbers of at least 1, and at most `features` of them."""
    sizes = positive_widths("cardinalities", cardinalities) if cardinalities else ()
    if len(sizes) > features:
        rule = f"needs at most as many numbers as there are features, {features}"
        raise ArgumentError("cardinalities", rule, list(sizes), f"features={len(sizes)}")
    return sizes
