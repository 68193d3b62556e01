"""A sparse layer in the place of a transformer's feed-forward block."""

from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.routing import Router
from moebius.core.row_context import calling_context, row_context
from moebius.core.stack import Stack
from moebius.execution._contract import Execution
from moebius.experts.ffn import FFN
from moebius.gates.linear import Linear
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError
from moebius.layers.mixture import Mixture, execution_kind
from moebius.routers.top_k import TopK


class SparseFFN(nn.Module):
    """Each token goes through k of E feed-forward experts, and through those that all tokens share.

    y = Σ_{e chosen} w_e ffn_e(x) + ffn_shared(x),   w = router(W x)

    No token is dropped. The experts are one `mb.Stack`: `layer.mixture.experts[3]` is one of them. What the layer did
    is seen as of any mixture: `with mb.record(layer) as log`.

    Arguments:
        dim: D, width of a token.
        hidden: width inside each expert.
        experts: E, how many; those of all tokens not counted.
        k: how many a token goes through.
        activation: of the experts, one of gelu (by erf), relu2, swiglu, geglu.
        bias: whether the experts' layers have biases; the gate has none.
        shared: how many experts all tokens go through, one wide block in the place of several, without weights.
        router: which experts a token has, in the place of the k with the largest scores, by softmax weights over these.
        execution: as of `mb.Mixture`; "auto" picks by rows, experts, number format and device.

    Shapes: x (…, D) → (…, D).

    Raises:
        ArgumentError: a size below 1 (shared: below 0), or an unknown activation.

    Example:
        >>> import torch
        >>> layer = SparseFFN(dim=8, hidden=16, experts=4, k=2, shared=1)
        >>> layer(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 5, 8])

    Reference: Shazeer et al. 2017, Outrageously Large Neural Networks; Jiang et al. 2024, Mixtral of Experts, section
    2; Dai et al. 2024, DeepSeekMoE, section 3.2 (shared experts).
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        experts: int = 64,
        k: int = 2,
        activation: str = "gelu",
        bias: bool = True,
        shared: int = 0,
        router: Router | None = None,
        execution: str | Execution = "auto",
    ):
        super().__init__()
        if isinstance(shared, bool) or shared < 0:
            raise ArgumentError("shared", "needs a whole number of at least 0", shared, "shared=1")
        self.dim, self.hidden = positive_integer("dim", dim), positive_integer("hidden", hidden)
        self.activation, self.bias, self.shared = activation, bias, shared
        pool = Stack.of(lambda: FFN(dim, hidden, activation, bias), positive_integer("experts", experts))
        self._k, self._given = positive_integer("k", k), router is not None
        router = TopK(k) if router is None else router
        self.mixture = Mixture(Linear(dim, experts, bias=False), pool, router, execution=execution)
        self.block = FFN(dim, shared * hidden, activation, bias) if shared else None

    @property
    def experts(self) -> int:
        """E, how many experts there are."""
        return self.mixture.count

    @property
    def k(self) -> float | int:
        """How many a token goes through; a schedule changes that of the router."""
        router = self.mixture.router
        return router.k if self.router is None and isinstance(router, TopK) else self._k

    @property
    def router(self) -> Router | None:
        """The router that was given; None where it is the k best by softmax."""
        return self.mixture.router if self._given or type(self.mixture.router) is not TopK else None

    @property
    def execution(self) -> str | Execution:
        """How the experts run: its name, or an execution of your own."""
        execution = self.mixture.execution
        return execution if (name := execution_kind(execution)) is None else name

    def forward(self, x: Float[Tensor, "... D"], mask: Tensor | None = None) -> Float[Tensor, "... D"]:
        """Each token through its experts.

        Arguments:
            x: tokens.
            mask: which of them are real, with their batch axes or the first of these; also `with mb.context(mask=…)`.
                What the others get is 0.
        """
        if x.shape[-1] != self.dim:
            rule = f"the tokens, of shape {tuple(x.shape)}, have another width"
            raise ArgumentError("dim", rule, self.dim, f"SparseFFN(dim={x.shape[-1]}, …)")
        frame, x, padding = calling_context(self).with_values(None, mask).remove_padding(x, x.ndim - 1)
        with row_context(frame):
            y = self.mixture(x)
        y = y if self.block is None else y + self.block(x)
        return y if padding is None else padding.restore_rows(y)
