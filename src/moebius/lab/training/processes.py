"""Several processes that train one model together: whose rows are whose, what is added up, and what is agreed on."""

import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import count as numbers_from
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from moebius.core.processes import Company, company, exchange, is_distributed
from moebius.kit.errors import LostProcessError, MoebiusError, TrainingError
from moebius.lab.data.batches import Batch
from moebius.lab.data.nested import map_nested, tensors_of

GO_ON = "run the same command again: it goes on from the last checkpoint, with any number of processes"


class Processes:
    """The processes that train one model together; each holds all rows and the whole model.

    All of them take the same steps. In each, a process computes an interval of the batch's rows, and counts its terms
    by its share of the step's rows: so sums of gradients and of terms over processes are those of one process with all
    rows. Alone, nothing here does anything.

    Arguments:
        rank: number of this process.
        count: R, how many there are.

    Reference: ours; torch.nn.parallel.DistributedDataParallel averages, and asks that each step trains the same parts.
    """

    def __init__(self, rank: int, count: int):
        self.rank, self.count = rank, count

    @classmethod
    def current(cls) -> "Processes":
        """Those that this process trains together with."""
        return cls(dist.get_rank(), dist.get_world_size()) if is_distributed() else cls(0, 1)

    @property
    def are_several(self) -> bool:
        """Whether there is more than this one."""
        return self.count > 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files, tells of the progress and calls callbacks."""
        return self.rank == 0

    def shares(self, batches: Iterator[Batch], runs: int, seed: int, step: int) -> Iterator[Batch]:
        """This process's rows of the batches of a step.

        The random numbers of a batch depend on the seed and the step, those that a model draws on the process, too. So
        they do not depend on what was drawn before, as by a run that was interrupted.

        Arguments:
            batches: with the rows of all processes; those of several runs in turn.
            runs: how many runs these are.
            seed: of the first run.
            step: number of the step.
        """
        return self._draw_shares(batches, runs, seed, step) if self.are_several else batches

    def _draw_shares(self, batches: Iterator[Batch], runs: int, seed: int, step: int) -> Iterator[Batch]:
        for number in numbers_from():
            _seed_generators(f"{seed} {step} {number}")
            batch = next(batches, None)
            if batch is None:
                return
            _seed_generators(f"{seed} {step} {number} {self.rank} of {self.count}")
            yield batch.of_process(self.rank, self.count, runs)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of all processes' values."""
        if self.are_several:
            values = values.clone()
            with exchange():
                dist.all_reduce(values)
        return values

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter], idle: Iterable[nn.Parameter] = ()) -> None:
        """Replace the gradients by their sums; None stays where no process has one.

        Arguments:
            parameters: those that require a gradient have to be the same in all processes.
            idle: of gates that their router does not train. Among several processes their gradient is zero where it is
                None alone, and an optimizer treats the two differently.
        """
        if not self.are_several:
            return
        groups: dict[tuple[torch.dtype, torch.device], list[nn.Parameter]] = {}
        for parameter in parameters:
            if parameter.requires_grad:
                groups.setdefault((parameter.dtype, parameter.device), []).append(parameter)
        for members in groups.values():
            present = torch.tensor([parameter.grad is not None for parameter in members])
            gradients = [
                torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in members
            ]
            # One message for all: the time of a small one is that of its way.
            flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), present.to(members[0])])
            with exchange():
                dist.all_reduce(flat)
            *sums, counts = flat.split([*(gradient.numel() for gradient in gradients), len(members)])
            for gradient, total in zip(gradients, sums, strict=True):
                gradient.copy_(total.view(gradient.shape))
            for number in (~present).nonzero().flatten().tolist():
                if counts[number]:
                    members[number].grad = gradients[number]
        for parameter in idle:
            if parameter.grad is not None and not parameter.grad.any():
                parameter.grad = None

    def first(self, value: Any) -> Any:
        """The first process's value, which can be pickled and holds no tensor of a GPU."""
        if not self.are_several:
            return value
        values = [value]
        with exchange():
            dist.broadcast_object_list(values, 0)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, each as `first` takes it."""
        if not self.are_several:
            return [value]
        values: list[Any] = [None] * self.count
        with exchange():
            dist.all_gather_object(values, value)
        return values

    def gather_tensors(self, values: Any) -> list[Any]:
        """The values of all processes, tensors in tuples and mappings of any form and size; those of others on the CPU.

        Arguments:
            values: of this process.
        """
        if not self.are_several:
            return [values]
        # What is pickled is their form: tensors of the device "meta" hold no numbers.
        forms = self.gather(map_nested(values, lambda tensor: tensor.detach().to("meta")))
        sizes = [sum(form.nbytes for form in tensors_of(each)) for each in forms]
        place = "cpu" if "cpu:" in dist.get_backend_config() else "cuda"
        message = torch.zeros(max(sizes), dtype=torch.uint8, device=place)
        position = 0
        for tensor in tensors_of(values):
            message[position : position + tensor.nbytes] = _bytes_of(tensor.detach().to(place))
            position += tensor.nbytes
        messages = [torch.empty_like(message) for _ in range(self.count)]
        with exchange():
            dist.all_gather(messages, message)
        return [
            values if number == self.rank else _read_tensors(form, of_process.cpu())
            for number, (form, of_process) in enumerate(zip(forms, messages, strict=True))
        ]

    @torch.no_grad()
    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Give tensors the values that the first process has."""
        for tensor in tensors if self.are_several else ():
            values = tensor.detach().contiguous()
            with exchange():
                dist.broadcast(values, 0)
            tensor.copy_(values)

    def block(self, rows: int, piece: int) -> slice:
        """The rows of which this process computes what all need: an interval of whole pieces, which may be empty."""
        pieces = -(-rows // piece)
        first, end = (-(-pieces * rank // self.count) * piece for rank in (self.rank, self.rank + 1))
        return slice(min(first, rows), min(end, rows))

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """A block that computes this process's rows of a step."""
        with company(Company.SHARED) if self.are_several else nullcontext():
            yield

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """A block without collectives that all processes run, or the first alone: an error in one ends it in all.

        Raises:
            MoebiusError: the first process that has an error has this one.
            TrainingError: it has an error of another kind, which it raises itself.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        texts = self.gather(_portable(error)) if self.are_several else []
        if error is not None:
            raise error
        for first in texts:
            if first is not None:
                raise first


def _bytes_of(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _read_tensors(form: Any, message: Tensor) -> Any:
    """The tensors that a message has, one behind the other, in the form that tensors of the device "meta" tell."""
    position = 0

    def read(tensor: Tensor) -> Tensor:
        nonlocal position
        begin, position = position, position + tensor.nbytes
        # A copy: numbers of eight bytes begin at whole eights.
        return message[begin:position].clone().view(tensor.dtype).view(tensor.shape)

    return map_nested(form, read)


def _portable(error: Exception | None) -> MoebiusError | None:
    """The error as processes tell it each other: of any kind that can be pickled."""
    if error is None or isinstance(error, MoebiusError):
        return error
    return TrainingError(f"another process: {type(error).__name__}: {error}", GO_ON)


def _seed_generators(text: str) -> None:
    seed = zlib.crc32(text.encode())
    # Not torch.manual_seed, which takes half a millisecond where there is no GPU.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)


@contextmanager
def peers() -> Iterator[None]:
    """A block in which this process needs the others, in a training that can go on.

    Raises:
        LostProcessError: one of them has ended; its fix is to go on.
    """
    try:
        yield
    except LostProcessError as error:
        raise LostProcessError(error.message, GO_ON) from None
