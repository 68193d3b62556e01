"""A block of transformers → a layer of this library."""

from typing import Any

from torch import nn

from moebius.convert._form import make_layer
from moebius.convert._tensors import fill_layer
from moebius.convert._transformers import read_block


def from_transformers(block: Any) -> nn.Module:
    """Make the layer that computes what one mixture-of-experts block of a transformers model computes.

    Blocks are recognised by the code of their forward, so that copies in other models count too:

    | blocks of | layer |
    | --- | --- |
    | Mixtral, OLMoE, Qwen3-MoE, Granite-MoE, FlexOlmo | `SparseFFN` |
    | Qwen2-MoE, Qwen3-Next | `SharedExpert` of a `Mixture`, whose shared expert has a sigmoid gate |
    | DeepSeek-V2 and V3, GLM-4-MoE, dots.llm1 | `SharedExpert` of a `Mixture` with `GroupTopK` and `Float32Linear` |

    Memory: the layer has the block's own parameters of router, experts, second matrix and gate of the shared expert;
    an optimizer that was made before goes on. The first two matrices of the shared expert are copied into one tensor.
    So are the biases on the choice, unless they are in float32. Hooks of the block are left behind.

    Routing is in float32 at least, where the block rounds float64 to float32: in float64 the layer is more precise.

    Arguments:
        block: a module such as `model.model.layers[0].mlp`.

    Returns:
        The layer, in the block's mode, number format and device.

    Raises:
        ArgumentError: a block that this library has no layer for: another router or activation, noise, a weight that is
            always 1, sharded or quantised experts.

    Example:
        >>> from transformers import OlmoeConfig  # doctest: +SKIP
        >>> from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock  # doctest: +SKIP
        >>> block = OlmoeSparseMoeBlock(OlmoeConfig(hidden_size=16, intermediate_size=8))  # doctest: +SKIP
        >>> from_transformers(block).mixture.experts.inner_weight is block.experts.gate_up_proj  # doctest: +SKIP
        True

    Reference: transformers 5, the `SparseMoeBlock` of each model.
    """
    form = read_block(block)
    layer = make_layer(form)
    fill_layer(layer, block)
    return layer.train(block.training)
