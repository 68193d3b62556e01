"""The models of S ≥ 1 runs on one device, computed as one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from moebius.core.recording import Log, Recorder
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.callbacks import Callbacks
from moebius.lab.training.cohort_model import CohortModel
from moebius.lab.training.mixture_parts import trainable_parts
from moebius.lab.training.outcome import Event
from moebius.lab.training.settings import Settings
from moebius.storage.tensors import put_tensors, stored_tensors


@dataclass(frozen=True)
class Member:
    """One run of those that train together.

    Arguments:
        build: makes the untrained model, a mixture or a network with mixtures inside; called once, after seeding.
        settings: how to train: equal in all members but for gate losses and the weight of the task's loss; `precision`
            is "fp32" or "bf16" here.
        seed: of the initialisation, the order of rows and everything random in the model.
        folder: where `state/`, `metrics.jsonl` and `timing.jsonl` go.
        listen: receives the events.
        callbacks: of the user who trains one run.
    """

    build: Callable[[], nn.Module]
    settings: Settings
    seed: int
    folder: Path
    listen: Callable[[Event], None] = lambda event: None
    callbacks: Callbacks | None = None


class Engine:
    """Builds the models of runs, and computes them as one: a single model, or equal mixtures on stacked parameters.

    Arguments:
        members: the runs; `cohort_obstacle` tells which can train together.
        device: "cpu" or "cuda".

    Attributes:
        models: of each run.
        call: the model that stands for all, called with the rows of all runs in turn.
        parameters: name → parameter; those of several runs are stacked, (S, …), and each model has views of them.
        trained: part → the parameters of it that require a gradient.
        recorder: of the routings of `call.model`.
    """

    def __init__(self, members: Sequence[Member], device: str = "cpu"):
        self.device = torch.device(device)
        precision = members[0].settings.precision
        self.models: list[nn.Module] = []
        for member in members:
            torch.manual_seed(member.seed)
            self.models.append(member.build())
        first = self.models[0]
        channels_last = len(members) == 1 and any(isinstance(module, nn.Conv2d) for module in first.modules())
        if channels_last:
            first.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for model in self.models:
            model.to(self.device)
        self.cohort = CohortModel(self.models) if len(members) > 1 else None  # type: ignore[arg-type]
        model = first if self.cohort is None else self.cohort.model
        assert precision != "auto"
        self.call = ModelCall(model, len(members), precision, channels_last)
        self.calls = [self.call] if self.cohort is None else [ModelCall(each, 1, precision) for each in self.models]
        self.parameters = {name: self.stacked(parameter) for name, parameter in first.named_parameters()}
        self.trained = {
            name: [self.stacked(parameter) for parameter in parameters]
            for name, parameters in trainable_parts(first).items()
        }
        self.recorder = Recorder(model)

    @property
    def runs(self) -> int:
        """S, how many models are computed as one."""
        return len(self.models)

    def stacked(self, parameter: nn.Parameter) -> nn.Parameter:
        """The tensor that is trained in the place of a parameter of the first model."""
        return parameter if self.cohort is None else self.cohort.leaves[parameter]

    def run_logs(self, log: Log) -> list[Log]:
        """The part of a log that is about the rows of each run."""
        return [log] if self.cohort is None else [self.cohort.run_log(log, run) for run in range(self.runs)]

    def clip_gradients(self, most: float | int) -> None:
        """`torch.nn.utils.clip_grad_norm_` for each run by itself."""
        if self.cohort is None:
            nn.utils.clip_grad_norm_(self.parameters.values(), most)
            return
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        scale = (most / (norms + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(scale.view(-1, *[1] * (gradient.ndim - 1)))

    def tensors(self) -> Mapping[str, Tensor]:
        """Everything that a checkpoint keeps of the models."""
        return stored_tensors(self.models[0]) if self.cohort is None else self.parameters

    @torch.no_grad()
    def put_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put what `tensors` gave into the models.

        Raises:
            RuntimeError, KeyError: they are those of other models.
        """
        if self.cohort is None:
            put_tensors(self.models[0], tensors)
            return
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[name])
