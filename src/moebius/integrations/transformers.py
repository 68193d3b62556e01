"""The blocks of transformers 5: a router that returns logits, and experts that take indices and weights."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moebius.core.routing import Routing
from moebius.integrations._experts import all_outputs, parameter_names, takes_choice
from moebius.integrations._experts_function import register_experts_function
from moebius.integrations._family import Family, Record, first_tensor, named_child
from moebius.integrations._routing import Normalisation, route_choice
from moebius.kit.errors import MissingExtraError, MoebiusError

# Attributes that name or compute the activation of the scores.
_ACTIVATIONS = ("score_fn", "scoring_function", "score_func", "scoring_func", "expert_selection_fn")
# A bias on the choice alone goes with sigmoids; of the routers without one these use them, too.
_BIASES = ("e_score_correction_bias", "expert_bias")
_SIGMOID_ROUTERS = {"FlintTopKRouter", "Lfm2MoeTopKRouter"}


class Transformers(Family):
    """Blocks with a router (`gate` or `router`) whose first output is the logits, and `experts(x, indices, weights)`.

    That is what transformers 5 makes of nearly all mixtures: Mixtral, OLMoE, Qwen2-MoE to Qwen3.5-MoE, DeepSeek V2 to
    V4, gpt-oss, Granite-MoE, Jamba, DBRX, GLM-4-MoE, Ernie 4.5, MiniMax and others. They are recognised by structure
    and not by name. Scores are the router's logits. Indices and weights are those that the experts receive, so that no
    bias, group limit or scaling of a router has to be known; a block's own `routed_scaling_factor` is multiplied in.
    Experts that every row sees (shared experts) are not part of the routing.

    `probs` is the softmax of the logits. It is their sigmoid, and no distribution, where the block or its router has a
    bias on the choice, or names another activation. Experts sharded over processes are refused: their indices are
    those of one process.

    Example:
        >>> class Experts(nn.Module):
        ...     def forward(self, hidden_states, top_k_index, top_k_weights): ...
        >>> block = nn.ModuleDict({"gate": nn.Linear(4, 2), "experts": Experts()})
        >>> Transformers().recognises(block)
        True

    Reference: transformers 5, `integrations/moe.py` and the `SparseMoeBlock` of each model; what its
    `output_router_logits` collects are these scores.
    """

    general = True

    def recognises(self, block: nn.Module) -> bool:
        """Whether it has a router, and experts whose forward takes rows, indices and weights."""
        experts = named_child(block, "experts")
        return named_child(block, "gate", "router") is not None and experts is not None and takes_choice(experts)

    def scoring_module(self, router: nn.Module) -> nn.Module:
        """The module whose first output is the scores: the router itself."""
        return router

    def attach(self, block: nn.Module, record: Record, outputs: bool) -> list[RemovableHandle]:
        """Hook the router for the scores, and the experts for indices and weights."""
        router, experts = named_child(block, "gate", "router"), named_child(block, "experts")
        assert router is not None
        assert experts is not None
        if getattr(experts, "_is_expert_parallel", False):
            rule = f"the experts of {type(block).__name__} are sharded: a process knows the routing of its own only"
            raise MoebiusError(rule, "mb.watch(model), with a model that was loaded without expert parallelism")
        normalisation, scale = find_normalisation(block, router), scale_after_experts(block, router)
        names = parameter_names(experts)[:3]
        scores: list[Tensor] = []

        def keep_scores(module: nn.Module, inputs: Any, output: Any) -> None:
            scores[:] = [first_tensor(output)]

        def read_choice(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            values = {**dict(zip(names, inputs, strict=False)), **keywords}
            rows, expert_TK, weight_TK = (values[name] for name in names)

            def make() -> Routing:
                scaled_TK = weight_TK if scale == 1 else weight_TK * scale
                routing = route_choice(scores[0], expert_TK, scaled_TK, normalisation)
                return replace(routing, outputs=all_outputs(experts, rows, routing.experts)) if outputs else routing

            if scores:
                record(make)
            scores.clear()

        return [
            self.scoring_module(router).register_forward_hook(keep_scores),
            experts.register_forward_pre_hook(read_choice, with_kwargs=True),
        ]


def register() -> str:
    """Add an experts implementation to transformers, under the name "moebius": any model that has such can use it.

    On a CPU gated experts (SwiGLU and GeGLU: Mixtral, OLMoE, Qwen-MoE, DeepSeek, …) run by this library's operator for
    rows that are sorted by expert, forward and backward. Experts of another form (gpt-oss), and all on a GPU, run by
    transformers' own "grouped_mm".

    Returns:
        The name.

    Raises:
        MissingExtraError: transformers is not installed, or is older than its interface for experts.

    Example:
        >>> name = mb.integrations.transformers.register()  # doctest: +SKIP
        >>> model = AutoModelForCausalLM.from_pretrained("allenai/OLMoE-1B-7B-0924")  # doctest: +SKIP
        >>> model.set_experts_implementation(name)  # doctest: +SKIP

    Reference: transformers 5, `integrations/moe.py`; the operator is ours, see `moebius.execution.Sorted`.
    """
    try:
        return register_experts_function()
    except ImportError as error:
        rule = f"needs transformers 5 with its interface for experts ({error})"
        raise MissingExtraError(rule, "pip install 'transformers>=5'") from None


def find_normalisation(block: nn.Module, router: nn.Module) -> Normalisation:
    """The activation of the scores: as the router or the block names it, a sigmoid with a bias, else the softmax."""
    for name in _ACTIVATIONS:
        for part in (router, block):
            activation: str | Callable[[Tensor], Tensor] | None = getattr(part, name, None)
            text = activation if isinstance(activation, str) else type(activation).__name__
            if activation is not None:
                match = re.search("softmax|sigmoid", text.lower())
                return match[0] if match else activation
    biased = any(isinstance(getattr(part, name, None), Tensor) for part in (router, block) for name in _BIASES)
    return "sigmoid" if biased or type(router).__name__ in _SIGMOID_ROUTERS else "softmax"


def scale_after_experts(block: nn.Module, router: nn.Module) -> float:
    """The factor that a block multiplies the sum of its experts by: its own, where the router does not apply it.

    One half where the sum is averaged with shared experts (Cohere).
    """
    if getattr(block, "shared_expert_combination_strategy", None) == "average" and hasattr(block, "shared_experts"):
        return 0.5
    applies_itself = hasattr(router, "routed_scaling_factor") or hasattr(block, "route_tokens_to_experts")
    return 1.0 if applies_itself else float(getattr(block, "routed_scaling_factor", 1.0))
