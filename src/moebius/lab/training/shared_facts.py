"""What has to be the same in all processes that train one model, as texts that they can compare."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from moebius.kit.errors import ArgumentError
from moebius.lab.data.nested import tensors_of
from moebius.lab.data.split import Dataset, Split
from moebius.lab.training.engine import Engine, Member
from moebius.lab.training.processes import Processes

# Longer texts are told apart by their digests.
LONGEST = 60
FIX = "give each process the same arguments; only the first one's callbacks are called"
DATA_FIX = "give each process all rows in the same order: no DistributedSampler, no part of a file"


def check_equal_facts(
    processes: Processes, engine: Engine, members: Sequence[Member], data: Dataset, task: Any, metrics: Mapping
) -> None:
    """Check all that decides the result, but for the weights, of which the first process's count.

    Arguments:
        processes: all of them call this.
        engine, members: the models and their runs.
        data: the rows.
        task: what is learned.
        metrics: of the user, by name.

    Raises:
        ArgumentError: processes differ; the error names the first thing in which they do.
    """
    facts = {name: _describe_split(split) for name, split in _splits(data).items()}
    facts |= {"task": task, "metrics": [*metrics], "device": engine.device}
    facts["model"] = [(model, _describe_tensors(engine)) for model in engine.models[:1]]
    facts["seed"] = [member.seed for member in members]
    settings = [member.settings.model_dump() for member in members]
    facts |= {name: [of_member[name] for of_member in settings] for name in settings[0]}
    facts |= {name: _count_callbacks(members, name) for name in ("on_epoch", "on_step")}
    texts = {name: _text(value) for name, value in facts.items()}
    everyone = processes.gather(texts)
    for name in texts:
        for rank, of_process in enumerate(everyone):
            if of_process[name] != everyone[0][name]:
                rule = "has to be the same in all processes, each of which computes its part of every batch"
                value = f"{everyone[0][name]} in process 0, {of_process[name]} in process {rank}"
                raise ArgumentError(name, rule, value, DATA_FIX if name in _splits(data) else FIX)


def _splits(data: Dataset) -> dict[str, Split]:
    splits = {"data": data.train, "test": data.test}
    return splits if data.validation is None else {**splits, "validation": data.validation}


def _describe_split(split: Split) -> str:
    digest = hashlib.blake2b(digest_size=4)
    for tensor in (*tensors_of(split.images), *tensors_of(split.labels), split.domains):
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"{len(split)} rows ({digest.hexdigest()})"


def _describe_tensors(engine: Engine) -> dict[str, tuple[Any, ...]]:
    trained = {id(parameter) for parameter in engine.parameters.values() if parameter.requires_grad}

    def describe(tensor: Tensor) -> tuple[Any, ...]:
        return tuple(tensor.shape), tensor.dtype, id(tensor) in trained

    return {name: describe(tensor) for name, tensor in {**engine.tensors(), **engine.parameters}.items()}


def _count_callbacks(members: Sequence[Member], kind: str) -> list[int]:
    return [len(getattr(member.callbacks, kind)) if member.callbacks else 0 for member in members]


def _text(value: Any) -> str:
    """What a value is, without where it lies in memory."""
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(value) if not isinstance(value, str) else value)
    if len(text) <= LONGEST:
        return text
    return f"another ({hashlib.blake2b(text.encode(), digest_size=4).hexdigest()})"
