"""`watch`: the routings of every mixture in a model, of whatever library, without leaving anything on the modules."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from fnmatch import fnmatchcase

import torch
from torch import nn

from moebius.core.activation_checkpointing import backward_number, is_checkpointed
from moebius.core.equality import named_parts
from moebius.core.recording import Log, Recorder, without_gradients
from moebius.core.routing import Routing
from moebius.integrations._family import Family, named_child
from moebius.integrations._masks import AttentionMasks
from moebius.integrations.described import Described
from moebius.kit.errors import ArgumentError, MoebiusError
from moebius.kit.registry import did_you_mean, find, kinds


def watch(
    model: nn.Module, outputs: bool = False, describe: Mapping[str, Described] | None = None
) -> AbstractContextManager[Log]:
    """Collect the routings of every mixture in `model`, ours and those of other libraries, while the block runs.

    `mb.record` for any model: mixtures of ours are recorded as there, and the blocks of other libraries are read by
    forward hooks, a family each (`mb.integrations`). The model computes the same bits, forward and backward, and after
    the block no hook is left. Rows are tokens: a batch of B sequences of S tokens has T = B·S rows, sequence after
    sequence, and every call of a block is a routing of its own: generation of tokens gives one for each token.

    Padding is routed by these blocks like any row. `Routing.aux["mask"]` (T,) is True for real rows: by the
    `attention_mask` of the model around the block, or by `mb.context(mask=…)`; it is absent where neither is known.

    Routings keep their graph, so that losses of them have gradients, except inside activation checkpoints. Under
    `torch.no_grad()` there is no graph to keep.

    Arguments:
        model: any module that contains mixtures.
        outputs: run all experts on all rows, whatever the router selected, and keep their outputs as
            `Routing.outputs` (T, E, …). E times the work; a family whose experts cannot be run so raises an error.
        describe: path of a block, or a pattern (`"layers.*.moe"`) → its description, for blocks that no family
            recognises, and for those that one reads wrongly.

    Returns:
        Module path → one Routing for each call; the path of `model` itself is "".

    Raises:
        ArgumentError: `describe` names no module.
        MoebiusError: no mixture is recognised; the model is compiled, which leaves hooks out; at the end of the block:
            a watched block ran without its router or its experts, or none ran.

    Example:
        >>> import moebius as mb
        >>> class Experts(nn.Module):
        ...     def forward(self, hidden_states, top_k_index, top_k_weights):
        ...         return hidden_states * top_k_weights.sum(-1, keepdim=True)
        >>> class Block(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.gate, self.experts = nn.Linear(4, 3), Experts()
        ...     def forward(self, x):
        ...         best = self.gate(x).softmax(-1).topk(2)
        ...         return self.experts(x, best.indices, best.values)
        >>> model = nn.Sequential(Block())
        >>> with mb.watch(model) as log:
        ...     y = model(torch.zeros(5, 4))
        >>> log["0"][0]
        Routing(rows=5, experts=3, assignments=10)

    Reference: ours.
    """
    parts = named_parts(model)
    _refuse_compiled(parts)
    blocks = _blocks(parts, describe or {})
    if not blocks and not any(_is_ours(part) for _, part in parts):
        raise _nothing_found(model, parts)
    return _watching(model, blocks, outputs)


@contextmanager
def _watching(model: nn.Module, blocks: dict[str, tuple[nn.Module, Family]], outputs: bool) -> Iterator[Log]:
    handles, ran = [], set()
    masks = AttentionMasks(model, list(blocks))
    try:
        with Recorder(model).recording(outputs) as log:
            handles += masks.handles
            for path, (block, family) in blocks.items():
                handles += family.attach(block, _recorder(log, path, masks), outputs)
                handles.append(block.register_forward_pre_hook(lambda *_, path=path: ran.add(path)))
            yield log
    finally:
        for handle in handles:
            handle.remove()
    _require_routings(log, blocks, ran)


def _recorder(log: Log, path: str, masks: AttentionMasks) -> Callable[[Callable[[], Routing]], None]:
    """What a family's hooks call: it makes the routing of this call, with its mask, and appends it to the log."""
    first_backward = backward_number()

    def record(make: Callable[[], Routing]) -> None:
        if backward_number() != first_backward:  # an activation checkpoint repeats the call
            return
        # A checkpoint counts what its forward saves for backward, and its replay may come when the hooks are gone.
        is_detached = is_checkpointed()
        with torch.no_grad() if is_detached else nullcontext():
            routing = make()
        if (mask := masks.of_rows(path, len(routing.scores))) is not None:
            routing = replace(routing, aux={**routing.aux, "mask": mask})
        if is_detached:
            rule = f"the routing of {path!r} has no gradient, because an activation checkpoint repeats its forward"
            routing = without_gradients(routing, MoebiusError(rule, "model.activation_checkpointing_disable()"))
        log.setdefault(path, []).append(routing)

    return record


def _blocks(
    parts: list[tuple[str, nn.Module]], describe: Mapping[str, Described]
) -> dict[str, tuple[nn.Module, Family]]:
    """Path → block and family, in the order of the model: described ones, and those that a family recognises."""
    for pattern in describe:
        if not any(_matches(path, pattern) for path, _ in parts):
            rule = "needs the paths of modules, or patterns of them"
            raise ArgumentError("describe", rule, pattern, did_you_mean(pattern, [path for path, _ in parts]))
    names = [kind for kind in kinds("integrations") if kind != "described"]
    families = sorted((find("integrations", name)() for name in names), key=lambda family: family.general)
    blocks = {}
    for path, part in parts:
        description = next((describe[pattern] for pattern in describe if _matches(path, pattern)), None)
        if description is None and not _is_ours(part):
            description = next((family for family in families if family.recognises(part)), None)
        if description is not None:
            blocks[path] = part, description
    return blocks


def _matches(path: str, pattern: str) -> bool:
    """Whether a path fits a pattern name by name: "layers.*.moe" fits "layers.0.moe", and "*" a single name."""
    names, patterns = (text.split(".") if text else [] for text in (path, pattern))
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))


def _is_ours(part: nn.Module) -> bool:
    """Whether the module is one of this library, or of a class made from one; this room has none but in examples."""
    homes = (base.__module__.split(".")[:2] for base in type(part).__mro__)
    return any(home[0] == "moebius" and home[1:] != ["integrations"] for home in homes)


def _refuse_compiled(parts: list[tuple[str, nn.Module]]) -> None:
    """Refuse compiled models: compiled code keeps the hooks that were there when it was compiled, and no others."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    if getattr(getattr(dynamo, "_stance", None), "stance", None) == "force_eager":
        return
    for path, part in parts:
        if type(part).__name__ == "OptimizedModule" or part._compiled_call_impl is not None:
            rule = f"{path or 'the model'} is compiled, and compiled code leaves out hooks that are added later"
            raise MoebiusError(rule, 'with torch.compiler.set_stance("force_eager"), mb.watch(model) as log: …')


def _nothing_found(model: nn.Module, parts: list[tuple[str, nn.Module]]) -> MoebiusError:
    """The error of a model without known mixtures, with a description of the part that looks most like one."""
    path, gate, experts = "layers.*.moe", "gate", "experts"
    for part_path, part in parts:
        networks = named_child(part, "experts", "mlp_experts", "ffn_experts")
        names = [name for name in part._modules if name in ("gate", "router", "wg", "gating")]
        if networks is not None and names:
            pattern = ".".join("*" if name.isdigit() else name for name in part_path.split("."))
            path, gate = pattern, names[0]
            experts = next(name for name, child in part._modules.items() if child is networks)
            break
    rule = f"no mixture of experts is recognised in {type(model).__name__}"
    description = f'mb.integrations.Described("{gate}", mb.routers.TopK(2), experts="{experts}")'
    return MoebiusError(rule, f'mb.watch(model, describe={{"{path}": {description}}})')


def _require_routings(log: Log, blocks: Mapping[str, object], ran: set[str]) -> None:
    """Refuse a log in which a block is missing that ran: what replaced its parts is not seen by hooks."""
    silent = [path for path in blocks if path in ran and path not in log]
    if silent:
        rule = f"{silent[0]!r} ran, but its router or its experts were not called: other code computes them"
        raise MoebiusError(rule, "the model without fused kernels (use_kernels=False), or mb.watch(model, describe=…)")
    if blocks and not log:
        rule = f"nothing was recorded: none of the {len(blocks)} watched blocks was called as a module"
        raise MoebiusError(rule, "with mb.watch(model) as log: model(**batch), with the same model, not compiled")
