"""The processes that share the work, as torchrun starts them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch.distributed as dist

_LONGEST_RUN = timedelta(days=30)


class Process(NamedTuple):
    """This process: its number, and how many there are."""

    rank: int = 0
    world_size: int = 1

    def wait_for_all(self) -> None:
        """Return when all processes have called this. Raises ConnectionError where one has ended."""
        if self.world_size == 1:
            return
        try:
            dist.monitored_barrier(timeout=_LONGEST_RUN)
        except RuntimeError as error:
            raise ConnectionError("another process has ended: the same command continues what is missing") from error


@contextmanager
def process_group() -> Iterator[Process]:
    """Join the processes that `torchrun` started; without it this process is the only one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Process()
        return
    dist.init_process_group("gloo")
    try:
        yield Process(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def default_workers() -> int:
    """The number of cores for each of the processes on this machine, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
