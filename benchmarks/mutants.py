"""Whether the tests notice a wrong formula: `python -m benchmarks.mutants`.

Every small change that `benchmarks.mutations` knows is made in a copy of the package, and the quick tests run on it:
those first that name the module or what it defines, until one fails. A change that none notices is listed. With torch
loaded once for all of them, a change takes some seconds, all together about an hour; `--only grad_cam` does one module.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import resource
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from benchmarks.equivalent_mutants import EQUIVALENT
from benchmarks.mutations import Mutant, mutants_of
from benchmarks.report import ROOT, rows_of, save, write_report

PACKAGE = ROOT / "pytorch_grad_cam"
MODULES = (
    "grad_cam", "grad_cam_plusplus", "grad_cam_elementwise", "hirescam", "xgrad_cam", "layer_cam", "shapley_cam",
    "eigen_cam", "eigen_grad_cam", "seg_eigen_cam", "kpca_cam", "fem", "random_cam", "score_cam", "ablation_cam",
    "recipro_cam", "layer_integrated_gradients", "cam", "ss_grad_cam", "odam", "lift_cam", "smooth_grad_cam_plusplus",
    "ss_cam", "is_cam", "group_cam", "gscore_cam", "perturbation.group_scores", "perturbation.noisy_gradients",
    "perturbation.deep_lift", "perturbation.tail_contributions", "perturbation.path_gradients", "perturbation.tail_cam",
    "engine.recorded_tails", "finer_cam", "path_cam", "refine_cam", "sess", "fullgrad_cam", "guided_backprop",
    "ablation_layer",
    "engine.maps", "engine.dominant_eigenvector", "engine.principal_component", "engine.kernel_component",
    "engine.bias_gradients", "engine.rescaled_contributions", "engine.torch_quirks.zero_rows",
    "engine.torch_quirks.short_backward",
    "perturbation.ablated_scores", "perturbation.affine_tail", "perturbation.masked_scores",
    "perturbation.single_cells", "perturbation.few_positions", "perturbation.sliding_windows",
    "perturbation.window_maps", "metrics.arcc",
    "metrics.cam_mult_image", "metrics.multigrid", "metrics.road", "metrics.perturbation_confidence",
    "metrics.ground_truth", "metrics.localisation", "metrics.box_accuracy", "metrics.grid_pointing_game",
    "metrics.average_drop", "metrics.baselines", "metrics.complexity", "metrics.deletion_insertion",
    "metrics.randomisation", "metrics.robustness", "metrics.shared_scores", "metrics.shares", "metrics.similarity",
    "rise", "perturbation.random_masks", "utils.model_targets", "utils.svd_on_activations", "callbacks.lightning",
    "engine.differentiability", "volumes.windows", "volumes.windowed_inputs", "volumes.shared_weights", "volumes.reach",
    "volumes.stitching", "volumes.sliding_window_cam", "volumes.window_targets", "volumes.scan", "volumes.nifti",
    "volumes.dicom", "volumes.dicom_slices", "volumes.frames", "volumes.films", "volumes.signals", "seg_xres_cam",
    "engine.segmentation.regions", "engine.segmentation.segments",
    "engine.segmentation.segmentation_target", "engine.fastest_way", "engine.compiled_capture", "engine.compiled_model",
    "engine.compiled_forward", "engine.compiled_difference", "tam", "words.image_tokens", "words.generation",
    "text_relevance", "zoo.letterbox",
    "mask_clip", "attention.value_path", "attention.tokens", "attention.windows", "attention.blocked_tokens",
    "locate.runs_of_image", "locate.left_out", "locate.views",
    "registration.inset",
)  # fmt: skip
TESTS = [
    next((ROOT / "tests").glob(f"*/test_{name}.py"))
    for name in (
        "formulas", "recipro_cam", "layer_integrated_gradients", "cam", "lift_cam", "score_forms", "raw_maps",
        "affine_tail", "zero_rows", "short_backward", "guided_backprop", "fullgrad", "targets", "metrics",
        "kernel_component",
        "multigrid", "localisation", "grid_pointing_game", "deletion_insertion", "complexity", "robustness",
        "randomisation", "dominant_eigenvector", "oracles", "several_targets", "perturbation", "meta", "properties",
        "rise", "maps_in_a_loss", "lightning", "windows", "sliding_window_cam", "scans", "films", "signals",
        "segmentation", "fastest_way", "compiled_calls", "tam", "text_relevance", "letterbox", "degenerate",
        "attention_methods", "mask_clip", "runs_of_image", "inset", "views", "compiled_difference",
    )
]  # fmt: skip
PRELOADED = ["torch", "torchvision", "pytest", "hypothesis", "cv2", "sklearn.decomposition", "ttach"]
MOST_SECONDS = 120  # of processor time, whatever else the machine does; the quick tests take 30
NOTES = "killed: a quick test fails, or takes too long, on a copy of the package with that change"
KILLED = 3  # Python itself fails with 1 or 2


def path_of(module: str) -> Path:
    return PACKAGE / f"{module.replace('.', '/')}.py"


def tests_of(module: str) -> tuple[list[str], list[str]]:
    """The quick tests that name the module or what it defines, and the others."""
    names = re.findall(r"^(?:def|class) ([A-Za-z]\w*)", path_of(module).read_text(), re.MULTILINE)
    named = re.compile(rf"pytorch_grad_cam\.{module}\b|\b({'|'.join(names) or module})\b")
    naming = [str(file) for file in TESTS if named.search(file.read_text())]
    return naming, [str(file) for file in TESTS if str(file) not in naming]


def is_killed(module: str, source: str) -> bool:
    """Whether a test fails on a copy of the package with another source of the module, or takes too long."""
    with TemporaryDirectory() as folder:
        package = shutil.copytree(PACKAGE, Path(folder) / PACKAGE.name)
        (package / path_of(module).relative_to(PACKAGE)).write_text(source)
        forks = get_context("forkserver")
        forks.set_forkserver_preload(PRELOADED)
        process = forks.Process(target=_run_tests, args=(folder, *tests_of(module)))
        process.start()
        process.join(10 * MOST_SECONDS)
        process.kill()
        process.join()
    if process.exitcode in (1, 2):
        raise RuntimeError(f"the tests of a mutant of {module} could not be run")
    return process.exitcode != 0  # killed, or ended by a signal


def _run_tests(folder: str, *stages: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
    gc.freeze()  # pytest searches all that is loaded for garbage
    os.chdir(folder)
    torch.set_num_threads(1)
    options = ["-x", "-q", "-p", "no:cacheprovider", "-o", f"pythonpath={folder} {ROOT / 'tests'}"]
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        failed = any(pytest.main([*options, *tests]) for tests in stages if tests)
    sys.exit(KILLED if failed else 0)


def meant(module: str) -> list[Mutant]:
    """The mutants that a test can notice."""
    return [mutant for mutant in mutants_of(path_of(module)) if f"{module}: {mutant.change}" not in EQUIVALENT]


def row_of(module: str, jobs: int) -> dict[str, Any]:
    """How many mutants there are, how many the tests kill, and the others."""
    mutants = meant(module)
    with ThreadPoolExecutor(jobs) as threads:
        killed = list(threads.map(lambda mutant: is_killed(module, mutant.source), mutants))
    survivors = [mutant for mutant, is_dead in zip(mutants, killed, strict=True) if not is_dead]
    lines = [f"{module.replace('.', '/')}.py:{mutant.line}: `{mutant.change}`" for mutant in survivors]
    return {"mutants": len(mutants), "killed": sum(killed), "survivors": "; ".join(lines) or None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=MODULES, metavar="MODULE", help="default: all")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    if is_killed("engine.maps", path_of("engine.maps").read_text()):
        raise RuntimeError("the tests fail on the package as it is: nothing can be learnt from changing it")
    rows = rows_of("mutants") if options.only else {}
    for module in options.only or MODULES:
        rows[module] = row_of(module, options.jobs)
        sys.stderr.write(f"{module}: {rows[module]}\n")
        counted = [rows[each] for each in MODULES if each in rows]
        total = {column: sum(row[column] for row in counted) for column in ("mutants", "killed")}
        rows = {"all": total, **{each: rows[each] for each in MODULES if each in rows}}
        save("mutants", rows, NOTES)
    write_report("mutants", rows, NOTES)


if __name__ == "__main__":
    main()
