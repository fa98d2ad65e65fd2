"""Several processes under torchrun: rank, world size, and the process group; one process without
it.

Training splits each batch (train.py), and each process's loss weighs as its share of it, which may
be uneven. A curvature pass deals out the batches of its loader, which
every process reads alike, and adds up what came of them (`mine`, `add_up`); work by layer is dealt
out by name (`each`). Labels are drawn from one generator in one order by all, so the masks are
those of one process.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import torch
import torch.distributed as dist

from common.cells.errors import UserError

Value = TypeVar("Value")
Result = TypeVar("Result")

NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")  # torchrun sets them all
MAX_PROCESSES = 1 << 20


def start(device: torch.device) -> None:
    """Join the process group that torchrun describes in the environment (gloo on CPU, NCCL on
    CUDA); else do nothing.
    """
    if wanted() > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        except (RuntimeError, ValueError) as error:
            raise UserError(
                "MASTER_ADDR",
                os.environ["MASTER_ADDR"],
                f"the other processes cannot be joined ({str(error).splitlines()[0][:200]})",
                "start them all with torchrun",
            ) from None


def wanted() -> int:
    """How many processes the environment asks for. Raises UserError where it says that, and not
    which of them this one is: some schedulers set WORLD_SIZE alone."""
    size = os.environ.get("WORLD_SIZE", "1")
    remedy = "start the processes with torchrun, or unset WORLD_SIZE"
    if not (size.isdecimal() and 1 <= int(size) <= MAX_PROCESSES):
        raise UserError("WORLD_SIZE", size, "is no number of processes", remedy)
    if int(size) == 1:
        return 1
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        raise UserError("WORLD_SIZE", size, f"is set without {missing[0]}", remedy)
    rank = os.environ["RANK"]
    if not (rank.isdecimal() and int(rank) < int(size)):
        raise UserError("RANK", rank, f"outside 0..{int(size) - 1}", remedy)
    return int(size)


def stop() -> None:
    """Leave the process group if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def mine(index: int) -> bool:
    """Whether the index-th piece of a job that all processes see alike is this process's to do."""
    return index % world() == rank()


def share(examples: int) -> float:
    """The fraction of a batch of so many examples that this process has: every world-th of them."""
    return len(range(rank(), examples, world())) / examples


def add_up(tensors: Iterable[torch.Tensor]) -> None:
    """Every process's tensors become the sums over all processes, in place; all give the same
    shapes in the same order.
    """
    if dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)


def dealt(values: Mapping[str, Value], first: int = 0) -> dict[str, Value]:
    """The entries, by name, that are this process's to do; all of them without torchrun. The i-th
    name belongs to process first + i, counted round."""
    return {name: value for i, (name, value) in enumerate(values.items()) if mine(first + i)}


def each(
    names: Iterable[str], work: Callable[[str], Result], in_turn: bool = False
) -> Iterator[tuple[str, Result]]:
    """(name, work(name)) for every name, in order. Under torchrun one process does each (as `dealt`
    says) and all receive its result: tensors and plain values, tensors on the group's device.

    As many names as there are processes are worked on at once, so that no more results are held;
    `in_turn` one at a time, for work that builds on the results before it.
    """
    names = list(names)
    at_once = 1 if in_turn else world()
    for start in range(0, len(names), at_once):
        together = names[start : start + at_once]
        done = {name: work(name) for name in dealt(dict.fromkeys(together), start)}
        yield from gathered(done, together).items()


def gathered(known: Mapping[str, Value], names: Iterable[str]) -> dict[str, Value]:
    """What all processes know, each of names of its own, in the order of `names`: tensors and plain
    values, tensors on the group's device.
    """
    if not dist.is_initialized():
        return {name: known[name] for name in names}
    packed, found = io.BytesIO(), {}
    torch.save(dict(known), packed)
    parts = [b""] * world()
    dist.all_gather_object(parts, packed.getvalue())
    on_gpu = dist.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    for part in parts:
        found |= torch.load(io.BytesIO(part), map_location=device, weights_only=True)
    return {name: found[name] for name in names}


def abandoned(error: Exception) -> UserError | None:
    """What an error says that means that another process of the job is gone, as one line; None for
    any other error.
    """
    if not (dist.is_initialized() and (isinstance(error, dist.DistError) or "gloo" in str(error))):
        return None
    return UserError(
        "process",
        rank(),
        "another process of this job has ended or cannot be reached",
        "run the same command again: it goes on from what is saved",
    )


def barrier() -> None:
    """Wait for all processes."""
    if dist.is_initialized():
        dist.barrier()
