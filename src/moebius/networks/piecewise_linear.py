"""Numbers as piecewise-linear features, with bins whose edges are quantiles of the training rows."""

from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError


class PiecewiseLinear(nn.Module):
    """Each number as one value per bin: 1 in bins below it, 0 in bins above it, and how far it is inside its bin.

    e_b(x) = (x − left_b) / (right_b − left_b), at least 0 but in the first bin, and at most 1 but in the last bin

    The edges are a buffer: they are in the state dict, and not trained. They begin as the quantiles of the standard
    normal distribution, which fits standardised columns; `fit_rows` makes them the quantiles of rows. Quantiles that
    coincide become one edge. Such a column has fewer bins, and the values of its last places are 0.

    Arguments:
        columns: number of columns.
        bins: B, number of bins of each column.

    Shapes: x (…, columns) → (…, columns · B).

    Raises:
        ArgumentError: a number below 1.

    Example:
        >>> encoding = PiecewiseLinear(columns=1, bins=2)
        >>> encoding.fit_rows(torch.tensor([[0.0], [1.0], [3.0]]))
        >>> encoding.edges
        tensor([[0., 1., 3.]])
        >>> encoding.is_fitted
        True
        >>> encoding(torch.tensor([[-1.0], [0.5], [2.0]])).tolist()
        [[-1.0, 0.0], [0.5, 0.0], [1.0, 0.5]]

    Reference: Gorishniy, Rubachev, Babenko 2022, On Embeddings for Numerical Features in Tabular Deep Learning,
        equation 1 and section 3.1 (bins from quantiles).
    """

    edges: Tensor

    def __init__(self, columns: int, bins: int):
        super().__init__()
        self.columns, self.bins = positive_integer("columns", columns), positive_integer("bins", bins)
        self.outputs = columns * bins
        self.register_buffer("edges", self._normal_edges().repeat(columns, 1))

    def _normal_edges(self) -> Float[Tensor, " edges"]:
        inner = [NormalDist().inv_cdf(place / self.bins) for place in range(1, self.bins)]
        return torch.tensor([-3.0, *inner, 3.0])

    @property
    def is_fitted(self) -> bool:
        """Whether the edges are those of rows, and no longer those that every encoding begins with."""
        first = self._normal_edges().to(self.edges).expand_as(self.edges)
        return not torch.equal(self.edges, first)

    @torch.no_grad()
    def fit_rows(self, rows: Float[Tensor, "T columns"]) -> None:
        """Make the edges the quantiles 0, 1/B … 1 of each column, interpolated; equal rows give equal edges.

        Raises:
            ArgumentError: no rows.
        """
        if not len(rows):
            raise ArgumentError("rows", "needs at least one row to take quantiles of", 0, "rows: the training rows")
        values = rows.double().sort(dim=0).values
        place = torch.linspace(0, len(values) - 1, self.bins + 1, dtype=torch.float64, device=rows.device)
        below = place.floor().long()
        above = (below + 1).clamp(max=len(values) - 1)
        quantiles = torch.lerp(values[below], values[above], (place - below).unsqueeze(1)).to(self.edges.dtype)
        for edges, column in zip(self.edges, quantiles.unbind(1), strict=True):
            distinct = column.unique()
            edges[: len(distinct)] = distinct
            edges[len(distinct) :] = distinct[-1]

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The values of all bins, column by column."""
        # In float32 at least: in half precision neighbouring edges may coincide with the number between them.
        dtype = torch.promote_types(x.dtype, torch.float32)
        edges = self.edges.to(dtype)
        left, width = edges[:, :-1], edges.diff(dim=1)
        exists = width > 0
        slope = torch.where(exists, 1 / torch.where(exists, width, 1), 0)
        values = (x.to(dtype).unsqueeze(-1) - left) * slope
        is_first = torch.arange(self.bins, device=x.device) == 0
        is_last = exists & ~torch.cat([exists[:, 1:], torch.zeros_like(exists[:, :1])], 1)
        values = torch.where(is_first, values, values.clamp(min=0))
        values = torch.where(is_last, values, values.clamp(max=1))
        return values.flatten(-2).to(x.dtype)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"columns={self.columns}, bins={self.bins}"
