"""The libraries, each in its own environment and process, taking turns at the same work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.peers import environment_of

HERE = "here"
SCRIPT = Path(__file__).parent / "contestants/worker.py"


class Library(NamedTuple):
    """The adapter in `contestants`, and what PyPI calls the package."""

    adapter: str
    requirement: str | None = None


LIBRARIES = {
    HERE: Library("cam_classes"),
    "grad-cam 1.5.7": Library("cam_classes", "grad-cam==1.5.7"),
    "torch-cam 0.5": Library("torch_cam", "torchcam==0.5.0"),
    "captum 0.9": Library("captum_attributions", "captum==0.9.0"),
}


class Contestant:
    """The process of one library: `contestant.request(...)` is `Worker.request(...)` there.

    A process that ended, or that ran out of memory, is begun anew with the network that it last prepared.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        self.name = name
        adapter, requirement = LIBRARIES[name]
        python = environment_of(requirement, "--no-deps") if requirement else Path(sys.executable)
        environment = {**os.environ, "TQDM_DISABLE": "1", "PYTHONPATH": ""}
        if requirement is None:
            environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        command = [python, SCRIPT, adapter, device, str(torch.get_num_threads())]
        self._start = partial(
            subprocess.Popen, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._process = self._start()
        self._prepared: tuple[str, tuple, dict] = "methods", (), {}

    def __getattr__(self, request: str) -> Any:
        def ask(*arguments: Any, **options: Any) -> Any:
            preparation = request.startswith("prepare")
            if self._process.poll() is not None:
                self._process = self._start()
                if not preparation:
                    self._ask(*self._prepared)
            if preparation:
                self._prepared = request, arguments, options
            return self._ask(request, arguments, options)

        return ask

    def _ask(self, request: str, arguments: tuple, options: dict[str, Any]) -> Any:
        self._process.stdin.write(json.dumps([request, arguments, options]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise Failure(f"the process ended with status {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            if answer["error"].startswith("out of memory"):
                self.close()
            raise Failure(answer["error"])
        return answer["answer"]

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


class Failure(Exception):
    """What a library raised."""


@contextmanager
def contestants(device: str = "cpu", names: Iterable[str] = LIBRARIES) -> Iterator[list[Contestant]]:
    with ExitStack() as stack:
        entered = []
        for name in names:
            entered.append(Contestant(name, device))
            stack.callback(entered[-1].close)
        yield entered
