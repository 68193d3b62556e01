"""Which rows of a call are padding: as the context says, or the attention mask of the model around the block."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Bool
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moebius.core.row_context import current_context
from moebius.integrations._experts import parameter_names

_MASK = "attention_mask"
# What tells a model, which gets the mask of tokens, from its layers, which get masks made of it.
_INPUTS = {"input_ids", "inputs_embeds"}


class AttentionMasks:
    """The attention masks that models inside a model are being called with.

    Arguments:
        model: the outermost model.
        paths: of the blocks whose rows are asked for.

    Attributes:
        handles: the hooks that read the masks.
    """

    def __init__(self, model: nn.Module, paths: list[str]):
        # Path → the mask of the call that runs now; None where the model is called without one.
        self._masks: dict[str, Tensor | None] = {}
        self._around = {path: _outer_paths(path) for path in paths}
        self.handles: list[RemovableHandle] = []
        for path in dict.fromkeys(outer for outers in self._around.values() for outer in outers):
            part = model.get_submodule(path)
            names = parameter_names(part)
            if _MASK in names and _INPUTS & set(names):
                self._read(path, part, names.index(_MASK))

    def _read(self, path: str, part: nn.Module, position: int) -> None:
        def enter(module: nn.Module, inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
            if _MASK in keywords or len(inputs) > position:
                self._masks[path] = keywords[_MASK] if _MASK in keywords else inputs[position]

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            self._masks.pop(path, None)

        self.handles.append(part.register_forward_pre_hook(enter, with_kwargs=True))
        self.handles.append(part.register_forward_hook(leave, always_call=True))

    def of_rows(self, path: str, rows: int) -> Bool[Tensor, " T"] | None:
        """True for the real ones of a block's rows; None where no mask is known that has these rows.

        Arguments:
            path: of the block.
            rows: T, the number of its rows: batch · tokens.
        """
        mask = current_context().mask
        if mask is not None:
            return mask.flatten() if mask.numel() == rows else None
        path_of_mask = next((outer for outer in self._around[path] if outer in self._masks), None)
        mask = None if path_of_mask is None else self._masks[path_of_mask]
        if not isinstance(mask, Tensor) or mask.ndim != 2 or len(mask) == 0 or rows % len(mask):
            return None
        tokens = rows // len(mask)
        if tokens == 0 or tokens > mask.shape[1]:
            return None
        # While a model generates, the mask has the tokens before this call, too.
        return (mask[:, mask.shape[1] - tokens :] != 0).flatten()


def _outer_paths(path: str) -> list[str]:
    """The paths of the modules around a block, the innermost first.

    Example:
        >>> _outer_paths("layers.0.mlp")
        ['layers.0', 'layers', '']
    """
    names = path.split(".") if path else []
    return [".".join(names[:count]) for count in range(len(names) - 1, -1, -1)]
