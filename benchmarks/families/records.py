"""What became of each model, judged in two processes."""

import json
import logging
import multiprocessing
import re
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.families.cases import FAMILIES, is_installed
from benchmarks.families.judge import Find, Judgement, described, found_by_torch_cam, found_by_us, judged
from benchmarks.families.question import Question, Target, as_trained

PROCESSES = 2
SECONDS = 300  # at most for a model
NOT_BUILT, NOT_JUDGED, TOO_LONG = OTHERS = "not built", "not judged", "took too long"

Record = dict[str, Any]


class _TooLong(BaseException):
    """The time for a model is over; no error that a judge takes for a refusal."""


def records_of(family: str, library: str, name: str, by_torch_cam: bool = False) -> list[Record]:
    """What became of each target of a model."""
    started = time.perf_counter()
    judgements: list[tuple[str, Judgement]] = []
    signal.signal(signal.SIGALRM, _raise_too_long)
    signal.alarm(SECONDS)
    try:
        judgements.extend(_judgements(dict(FAMILIES[family][library]())[name], by_torch_cam))
    except _TooLong:
        judgements.append(("the rest", Judgement(TOO_LONG, f"{SECONDS} s", "")))
    finally:
        signal.alarm(0)
    about = {"family": family, "model": name, "seconds": round(time.perf_counter() - started, 1)}
    return [{**about, "asked": asked, **judgement._asdict()} for asked, judgement in judgements]


def _judgements(build: Callable[[], Question], by_torch_cam: bool) -> Iterator[tuple[str, Judgement]]:
    try:
        torch.manual_seed(0)
        question = as_trained(build())
        with torch.no_grad():
            targets = question.targets(question.answer())
    except Exception as error:  # noqa: BLE001
        yield "all", Judgement(NOT_BUILT, described(error), "")
        return
    for asked, target in targets.items():
        yield asked, _judgement(question, target, found_by_torch_cam if by_torch_cam else found_by_us)


def _judgement(question: Question, target: Target, find: Find) -> Judgement:
    try:
        return judged(question, target, find)
    except Exception as error:  # noqa: BLE001
        return Judgement(NOT_JUDGED, described(error), "")


def _raise_too_long(*_: object) -> None:
    raise _TooLong


def _prepare() -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def everything(only: str, by_torch_cam: bool, kept: Path | None = None) -> tuple[list[Record], Counter[str]]:
    """The records of all models whose name or family matches; how many models of each library were left out because it
    is not installed.

    kept: a file that each model's records are added to as soon as they are there; models in it are not judged again.
    """
    known: dict[tuple[str, ...], list[Record]] = {}
    for line in kept.read_text().splitlines() if kept is not None and kept.exists() else ():
        of_model = json.loads(line)
        known[of_model[0]["family"], of_model[0]["model"]] = of_model
    asked: list[tuple[str, str, str]] = []
    left_out = Counter[str]()
    for family, libraries in FAMILIES.items():
        for library, cases in libraries.items():
            names = [name for name, _ in cases() if re.search(only, f"{family} {name}")]
            if is_installed(library):
                asked += [(family, library, name) for name in names]
            elif names:
                left_out[library] += len(names)
    missing = [(family, library, name) for family, library, name in asked if (family, name) not in known]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, context, _prepare) as pool:
        ask = partial(records_of, by_torch_cam=by_torch_cam)
        for done in as_completed([pool.submit(ask, *model) for model in missing]):
            of_model = done.result()
            known[of_model[0]["family"], of_model[0]["model"]] = of_model
            if kept is not None:
                with kept.open("a") as file:
                    file.write(f"{json.dumps(of_model)}\n")
            for record in of_model:
                sys.stderr.write(
                    f"{record['model']}, {record['asked']} ({record['seconds']} s): {record['verdict']}"
                    f" | {record['layer']} | {record['why']}\n"
                )
    return [record for family, _, name in asked for record in known[family, name]], left_out
