"""One library in a process of its own: answers requests, a line of JSON each, on standard input.

`python worker.py LIBRARY DEVICE THREADS`. Run as a script: the library is the one of the interpreter's environment.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import logging
import os
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import RACED, Work, compared, growing, work, work_from

BARE_EVERY = 4
# What ran before leaves caches and memory in another state: shorter calls than this follow a bare forward.
SHORT = 1.0
_MILLISECONDS = 0.3
_STATUS = Path("/proc/self/status")
# Of the machine's memory; a library that wants more fails, instead of the machine.
_MOST_MEMORY = 0.6


class Worker:
    """The requests, by the names of the methods."""

    def __init__(self, library: str, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.library = importlib.import_module(library)
        self.device = device

    def methods(self) -> list[str]:
        return [*self.library.METHODS, *self.library.TASKS]

    def prepare(self, network: str, batch: int) -> float:
        """One of the raced networks and random images; the seconds of a bare forward of them."""
        return self._warm(work(RACED[network], batch))

    def prepare_growing(self, channels: int, size: int, batch: int) -> float:
        return self._warm(work(growing(channels, size), batch))

    def prepare_images(self, network: str, file: str) -> None:
        """One of the compared networks, with images and categories from a file."""
        self._take(work_from(compared(network), file))

    def randomise(self, modules: list[str]) -> None:
        """Give the parameters within these modules new random values."""
        torch.manual_seed(1)
        for name in modules:
            for module in self.work.model.get_submodule(name).modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()

    def maps(self, method: str, file: str, count: int | None = None, **options: Any) -> None:
        """The maps of the first images to a file."""
        whole = self.work
        self.work = whole._replace(images=whole.images[:count], categories=whole.categories[:count])
        try:
            with self._maps_by(method, **options) as call:
                np.save(file, _as_array(call()))
        finally:
            self.work = whole

    def check(self, method: str, file: str) -> dict[str, Any]:
        """The first call: what it takes in memory over a bare forward's, in bytes; its maps go to a file."""
        _, bare = self._measured(self._bare)
        with self._maps_by(method) as call:
            started = time.perf_counter()
            maps, growth = self._measured(call)
            seconds = time.perf_counter() - started
            if seconds < SHORT:  # the first call also takes what stays: buffers and caches of the libraries
                maps, growth = self._measured(call)
        array = _as_array(maps)
        np.save(file, array[:1])
        return {"seconds": seconds, "bytes": growth, "bare bytes": bare, "shape": array.shape}

    def time(self, methods: list[str]) -> dict[str, tuple[float, float]]:
        """Seconds of each method, and of bare forwards around it."""
        bares = [self._settled_bare_seconds()]
        seconds, group = {}, {}
        for index, method in enumerate(methods):
            self._settle()
            with self._maps_by(method) as call:
                seconds[method], group[method] = self._seconds(call), len(bares)
            if index % BARE_EVERY == BARE_EVERY - 1 or index == len(methods) - 1:
                bares.append(self._settled_bare_seconds())
        return {method: (seconds[method], (bares[i - 1] + bares[i]) / 2) for method, i in group.items()}

    def forward_and_backward(self) -> tuple[float, float]:
        """Seconds of a forward with gradients and of the whole backward; of a bare forward."""

        def both() -> None:
            images = self.work.images.clone().requires_grad_()
            torch.autograd.grad(self.work.model(images).sum(), [images, *self.work.model.parameters()])

        both()
        return self._seconds(both), self._settled_bare_seconds()

    def _settled_bare_seconds(self) -> float:
        self._settle()
        return self._seconds(self._bare)

    def _settle(self) -> None:
        if self.bare_seconds < SHORT:
            self._bare()

    def repeat(self, method: str, calls: int, steps: int) -> list[tuple[float, int]]:
        """Seconds a call and bytes in use after each of so many steps of calls, by one object."""
        found = []
        with self._maps_by(method) as call:
            for _ in range(steps):
                started = time.perf_counter()
                for _ in range(calls):
                    call()
                found.append(((time.perf_counter() - started) / calls, _in_use("VmRSS")))
        return found

    def breakdown(self, method: str) -> dict[str, float]:
        """Seconds of a call, and of them those in forwards of the model and in backwards; the images of the forwards.

        A forward within a forward and a backward counts as part of it.
        """
        spent = {"all": 0.0, "forwards": 0.0, "backwards": 0.0, "images": 0}
        within = []

        def timed(kind: str, function: Callable) -> Callable:
            def called(*arguments: Any, **options: Any) -> Any:
                if within:
                    return function(*arguments, **options)
                within.append(kind)
                self._synchronize()
                started = time.perf_counter()
                try:
                    return function(*arguments, **options)
                finally:
                    self._synchronize()
                    spent[kind] += time.perf_counter() - started
                    within.clear()

            return called

        def counted(model: torch.nn.Module, images: torch.Tensor) -> Any:
            spent["images"] += 0 if within else len(images)
            return timed("forwards", plain.forward)(model, images)

        plain, gradients = type(self.work.model), torch.autograd.grad
        with self._maps_by(method) as call:
            call()
            self.work.model.__class__ = type(plain.__name__, (plain,), {"forward": counted})
            torch.autograd.grad = timed("backwards", gradients)
            try:
                spent["all"] = self._seconds(call)
            finally:
                self.work.model.__class__, torch.autograd.grad = plain, gradients
        return spent

    def _take(self, new: Work) -> None:
        self.work = new._replace(model=new.model.to(self.device), images=new.images.to(self.device))

    def _warm(self, new: Work) -> float:
        self._take(new)
        self._bare()
        self.bare_seconds = self._seconds(self._bare)
        return self.bare_seconds

    def _maps_by(self, method: str, **options: Any) -> Any:
        task = self.library.TASKS.get(method)
        return task(work=self.work) if task else self.library.maps_by(method, self.work, **options)

    def _bare(self) -> torch.Tensor:
        with torch.inference_mode():
            return self.work.model(self.work.images)

    def _seconds(self, call: Callable[[], Any]) -> float:
        """Of one call; on a GPU, where calls take milliseconds, the median of ten that are waited for."""
        first = self._seconds_once(call)
        if self.device == "cpu" or first > _MILLISECONDS:
            return first
        return statistics.median(self._seconds_once(call) for _ in range(10))

    def _seconds_once(self, call: Callable[[], Any]) -> float:
        self._synchronize()
        started = time.perf_counter()
        call()
        self._synchronize()
        return time.perf_counter() - started

    def _synchronize(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    def _measured(self, call: Callable[[], Any]) -> tuple[Any, int]:
        """The result, and by how many bytes the memory in use grew at its peak."""
        if self.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            result = call()
            self._synchronize()
            return result, torch.cuda.max_memory_allocated() - before
        ctypes.CDLL(None).malloc_trim(0)  # what malloc keeps for later would hide what is needed
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (Linux)
        before = _in_use("VmHWM")
        result = call()
        return result, _in_use("VmHWM") - before


def _in_use(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at their peak."""
    (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith(field)]
    return 1024 * int(line.split()[1])


def _as_array(maps: Any) -> np.ndarray:
    on_host = [each.detach().cpu() if isinstance(each, torch.Tensor) else each for each in maps]
    return np.stack([np.asarray(each, dtype=np.float32) for each in on_host])


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if sys.argv[2] == "cpu":
        most = int(_MOST_MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    worker = Worker(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    for line in sys.stdin:
        request, arguments, options = json.loads(line)
        try:
            answer = {"answer": getattr(worker, request)(*arguments, **options)}
        except Exception as error:  # noqa: BLE001
            out_of_memory = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
            name = "out of memory" if out_of_memory else type(error).__name__
            answer = {"error": f"{name}: {' '.join(str(error).split())[:200]}"}
        gc.collect()  # of what a library leaves in cycles
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
