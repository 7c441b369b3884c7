"""Every library's maps against the papers' formulas in float64: `python -m benchmarks.agreement`.

The formulas are those of `oracles`, literal loops over channels and positions; networks and images are seeded, the
demo network is trained. The raw map of a library is rectified, scaled to [0, 1] and enlarged linearly as ours is; the
number is the largest difference of all networks and images. Methods that draw noise, or that no formula here
describes, are left out.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.contest import Failure, contestants
from benchmarks.contestants.networks import COMPARED, work
from benchmarks.maps import finished
from benchmarks.oracles import ORACLES, finished_map
from benchmarks.report import save, table, write_report
from pytorch_grad_cam.demo import preprocess_scene
from pytorch_grad_cam.demo.scenes import make_scene

# Random; meta-methods with definitions of their own; quadratic in activations; in need of biases that are not zero.
LEFT_OUT = ("RandomCAM", "FinerCAM", "RefineCAM", "SESS", "ShapleyCAM", "FullGrad")
SLOW = ("AblationCAM", "ScoreCAM")
SLOW_ON = ("digits", "ResNet-18")
IMAGES = 3


def images_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    if name == "digits":
        rng = np.random.default_rng(5)
        scenes = [make_scene(rng) for _ in range(IMAGES)]
        return preprocess_scene(np.stack([s.image for s in scenes])).numpy(), np.array([s.labels[0] for s in scenes])
    prepared = work(COMPARED[name], IMAGES)
    return prepared.images.numpy(), np.array(prepared.categories)


def reference(name: str, method: str, images: np.ndarray, categories: np.ndarray) -> np.ndarray:
    network = COMPARED[name]
    model = work(network, 1).model.double()
    layer = model.get_submodule(network.layers[0])
    maps = [
        finished_map(ORACLES[method](model, layer, image, int(category)), network.size)
        for image, category in zip(torch.from_numpy(images).double(), categories, strict=True)
    ]
    return np.stack(maps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=COMPARED, default=list(COMPARED))
    parser.add_argument("--quick", action="store_true", help="the demo network only; nothing is written")
    options = parser.parse_args()
    names = ["digits"] if options.quick else options.networks
    cells: dict[str, dict[str, float]] = {}
    rows: dict[str, dict[str, float]] = {}
    with contestants() as racing, tempfile.TemporaryDirectory() as folder:
        file, work_file = Path(folder) / "maps.npy", Path(folder) / "work.npz"
        known = {each.name: each.methods() for each in racing}
        for name in names:
            images, categories = images_of(name)
            np.savez(work_file, images=images, categories=categories)
            for each in racing:
                each.prepare_images(name, str(work_file))
            for method in ORACLES:
                left_out = method in LEFT_OUT or (method in SLOW and name not in SLOW_ON)
                if left_out:
                    continue
                expected = reference(name, method, images, categories)
                for each in racing:
                    if method not in known[each.name]:
                        continue
                    try:
                        each.maps(method, str(file))
                    except Failure as failure:
                        sys.stderr.write(f"{each.name} {method} {name}: {failure}\n")
                        continue
                    apart = float(np.abs(finished(np.load(file), COMPARED[name].size) - expected).max())
                    cells.setdefault(f"{method}, {name}", {})[each.name] = apart
                    row = rows.setdefault(method, {})
                    row[each.name] = max(row.get(each.name, 0.0), apart)
                sys.stderr.write(f"{method} {name} {cells.get(f'{method}, {name}')}\n")
    if options.quick:
        sys.stdout.write(table(cells) + "\n")
        return
    save("agreement_cells", cells)
    write_report("agreement", rows, "largest difference to the paper's formula in float64, maps from 0 to 1")


if __name__ == "__main__":
    main()
