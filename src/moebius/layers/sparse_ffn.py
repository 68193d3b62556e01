"""A sparse layer that replaces a transformer's feed-forward block."""

from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.routing import Router
from moebius.core.row_context import calling_context, row_context
from moebius.core.stack import Stack
from moebius.execution._contract import Execution
from moebius.execution._packed import Packed, packing_obstacle
from moebius.experts.ffn import FFN
from moebius.gates.linear import Linear
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError
from moebius.layers.mixture import Mixture, execution_kind
from moebius.routers.top_k import TopK


class SparseFFN(nn.Module):
    """Runs each token through k of E feed-forward experts, and through the experts that all tokens share.

    y = Σ_{e selected} w_e ffn_e(x) + ffn_shared(x),   w = router(W x)

    No token is dropped. The experts are one `mb.Stack`: `layer.mixture.experts[3]` is one of them. The layer's routings
    are recorded like those of any mixture: `with mb.record(layer) as log`.

    Arguments:
        dim: D, width of a token.
        hidden: width inside each expert.
        experts: E, the number of experts, without the shared ones.
        k: how many experts a token goes through.
        activation: the experts' activation, one of gelu (by erf), relu2, swiglu, geglu.
        bias: whether the experts' layers have biases; the gate has none.
        shared: how many experts all tokens go through: one block of width shared · hidden, without weights.
        router: scores (T, E) → Routing; by default the k experts with the largest scores, weighted by a softmax over
            these.
        execution: as for `mb.Mixture`; "auto" picks by rows, experts, number format and device.
        init: how weights and biases of experts and gate begin: torch, keras, he, lecun or orthogonal, see
            `networks.starts`.

    Shapes: x (…, D) → (…, D).

    Raises:
        ArgumentError: a size is below 1 (shared: below 0), or the activation is unknown.

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
        init: str = "torch",
    ):
        super().__init__()
        if isinstance(shared, bool) or shared < 0:
            raise ArgumentError("shared", "needs a whole number of at least 0", shared, "shared=1")
        self.dim, self.hidden = positive_integer("dim", dim), positive_integer("hidden", hidden)
        self.activation, self.bias, self.shared = activation, bias, shared
        stack = Stack.of(lambda: FFN(dim, hidden, activation, bias, init), positive_integer("experts", experts))
        self._k, self._has_custom_router = positive_integer("k", k), router is not None
        router = TopK(k) if router is None else router
        self.mixture = Mixture(Linear(dim, experts, bias=False, init=init), stack, router, execution=execution)
        self.block = FFN(dim, shared * hidden, activation, bias, init) if shared else None
        self.init = init

    @property
    def experts(self) -> int:
        """E, how many experts there are."""
        return self.mixture.count

    @property
    def k(self) -> float | int:
        """How many experts a token goes through: the k of the default router, which a schedule may change."""
        router = self.mixture.router
        return router.k if self.router is None and isinstance(router, TopK) else self._k

    @property
    def router(self) -> Router | None:
        """The router, if it is not the default one; None for the k largest scores by softmax."""
        return self.mixture.router if self._has_custom_router or type(self.mixture.router) is not TopK else None

    @property
    def execution(self) -> str | Execution:
        """How the experts run: the name of a kind, or an execution that the registry does not have."""
        execution = self.mixture.execution
        execution = execution.before if isinstance(execution, Packed) else execution
        return execution if (name := execution_kind(execution)) is None else name

    def prepare_inference(self) -> "SparseFFN":
        """Pack the experts' weights for inference on this CPU, put the layer into evaluation mode, and return it.

        The processor's library rearranges the weights of a product in every call; packed ones are rearranged once.
        Under `torch.no_grad()` or `torch.inference_mode()` the layer then takes less time, most where experts have few
        rows; one row or two read the weights as they are. It holds a second copy of the weights. With gradients, in a
        compiled graph, in another number format, and after a change of the weights it computes as before; call the
        method again after a change. A copy of the layer and a saved one are not packed.

        Raises:
            ArgumentError: the weights are not on a CPU, not in float32 or bf16, or this torch has no oneDNN.

        Example:
            >>> import torch
            >>> layer = SparseFFN(dim=8, hidden=16, experts=4).prepare_inference()
            >>> with torch.inference_mode():
            ...     layer.mixture.chosen(torch.zeros(5, 8)).name
            'packed'

        Reference: ours; packed weights of oneDNN.
        """
        stack, before = self.mixture.experts, self.mixture.execution
        assert isinstance(stack, Stack)
        obstacle = packing_obstacle(stack)
        if obstacle is not None:
            weight = next(iter(stack.tensors().values()))
            place = f"{weight.dtype} on {weight.device}"
            raise ArgumentError("prepare_inference", obstacle, place, "layer.float().cpu().prepare_inference()")
        self.mixture.execution = Packed(stack, before.before if isinstance(before, Packed) else before)
        return self.eval()

    def forward(self, x: Float[Tensor, "... D"], mask: Tensor | None = None) -> Float[Tensor, "... D"]:
        """Run the layer.

        Arguments:
            x: tokens.
            mask: True for real tokens, with the tokens' batch axes or the first of these; also
                `with mb.context(mask=…)`. The outputs of padding are 0.
        """
        if x.shape[-1] != self.dim:
            rule = f"the tokens, of shape {tuple(x.shape)}, have another width"
            raise ArgumentError("dim", rule, self.dim, f"SparseFFN(dim={x.shape[-1]}, …)")
        context, x, padding = calling_context(self).with_values(None, mask).remove_padding(x, x.ndim - 1)
        with row_context(context):
            y = self.mixture(x)
        y = y if self.block is None else y + self.block(x)
        return y if padding is None else padding.restore_rows(y)
