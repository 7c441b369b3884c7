"""Are the metrics those of Quantus, torch-cam and captum? `python -m benchmarks.metrics`, 20 seeded cases each.

The largest difference from each library's own number, relative where that is above 1, with the same draws where there
are any. What differs on purpose (ties, empty masks) is not in the cases: the docstrings name it.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import metrics_of_peers as cases
from benchmarks.peers import environment_of
from benchmarks.report import write_report
from pytorch_grad_cam.metrics.average_drop import AverageDrop
from pytorch_grad_cam.metrics.cam_mult_image import IncreaseInConfidence
from pytorch_grad_cam.metrics.complexity import entropy, sparseness
from pytorch_grad_cam.metrics.deletion_insertion import Deletion, Insertion
from pytorch_grad_cam.metrics.localisation import energy_pointing_game, pointing_game, top_k_intersection
from pytorch_grad_cam.metrics.randomisation import efficient_mprt, mprt, random_logit
from pytorch_grad_cam.metrics.robustness import infidelity, max_sensitivity
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

WORKER = Path(cases.__file__)
CASES = 20
CLOSE = 1e-5
LIBRARIES = {
    "quantus": ("quantus==0.6.0", ()),
    "torch-cam": ("torchcam==0.5.0", ("--no-deps",)),
    "captum": ("captum==0.9.0", ("--no-deps",)),
}
QUANTUS_SEEDS_LATER = 1  # it draws with its seed and one more


class Saliency:
    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model

    def __call__(self, input_tensor: torch.Tensor, targets: Any) -> torch.Tensor:
        classes = [getattr(target, "category", target) for target in targets]
        return cases.saliency(self.model, input_tensor, classes)


def ours(seed: int) -> dict[str, Any]:
    """What this package says of a case."""
    model, (images, classes, maps, masks) = cases.network(seed), cases.case(seed)
    cam, categories = Saliency(model), classes.tolist()
    scaled = maps - maps.min((1, 2), keepdims=True)
    scaled = scaled / scaled.max((1, 2), keepdims=True)
    probabilities = [ClassifierOutputSoftmaxTarget(category) for category in categories]
    noise = {"noise": cases.NOISE, "samples": cases.SAMPLES, "seed": seed}
    later = 42 + QUANTUS_SEEDS_LATER
    return {
        "pointing game": pointing_game(maps, masks),
        "energy": energy_pointing_game(maps, masks),
        "top-k": top_k_intersection(maps, masks, cases.TOP),
        "top-k of the object": top_k_intersection(maps, masks),
        "entropy": entropy(maps),
        "sparseness": sparseness(maps),
        "deletion": Deletion(cases.STEPS)(images, maps, probabilities, model),
        "insertion": Insertion(cases.STEPS, "zero")(images, maps, probabilities, model),
        "average drop": AverageDrop()(images, maps, probabilities, model),
        "increase": IncreaseInConfidence()(images, scaled, probabilities, model),
        "max-sensitivity": max_sensitivity(cam, images, categories, cases.RADIUS, cases.SAMPLES, seed),
        "infidelity": infidelity(model, images, maps, categories, **noise),
        "infidelity, not normalised": infidelity(model, images, maps, categories, **noise, normalise=False),
        "random logit": random_logit(cam, images, categories, "spearman"),
        "MPRT": mprt(cam, images, categories, seed=later),
        "efficient MPRT": efficient_mprt(cam, images, categories, cases.BINS, later),
    }


def theirs(library: str, folder: Path) -> dict[str, np.ndarray]:
    """What a library says of all cases: (cases, images) by metric."""
    requirement, options = LIBRARIES[library]
    file = folder / f"{library}.npz"
    python = environment_of(requirement, *options)
    subprocess.run([python, WORKER, library, file, str(CASES)], check=True, env={"PATH": "", "OMP_NUM_THREADS": "1"})
    return dict(np.load(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=[*LIBRARIES])
    of_cases = [ours(seed) for seed in range(CASES)]
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for library in parser.parse_args().libraries:
            for metric, values in theirs(library, Path(folder)).items():
                here = np.array([np.asarray(found[metric]) for found in of_cases])
                found = values.reshape(here.shape)
                difference = float((np.abs(here - found) / np.abs(found).clip(min=1)).max())
                is_close = "yes" if difference <= CLOSE else "NO"
                name = f"{metric}, {LIBRARIES[library][0]}"
                rows[name] = {"largest difference": f"{difference:.0e}", "within 1e-5": is_close, "numbers": here.size}
    write_report("metrics", rows, f"{CASES} seeded cases of {cases.IMAGES} images")


if __name__ == "__main__":
    main()
