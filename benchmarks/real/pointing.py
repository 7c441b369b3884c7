"""How well do the methods point that are made to, over more scenes? `python -m benchmarks.real.pointing`.

Scenes of two cut-outs for EfficientNet-Lite0 and Lite1, by which PathCAM was chosen, and for Lite2, which was
kept aside: hit, wrong and energy as of `benchmarks.real`, each with its 95 % interval by bootstrap over the scenes; and
how often the map's maximum lies on the object or at most 4 px beside it: half a cell of the layers with cells of 8 px.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

from benchmarks.real.__main__ import PRODUCT, Asked, asked, maps_of, measured, row_of
from benchmarks.real.__main__ import interval as with_interval
from benchmarks.real.networks import NETWORKS
from benchmarks.real.pictures import scenes
from benchmarks.report import write_report

BESIDE = 4
METHODS = ("GradCAM", "FullGrad", "PathCAM")


def pointing_row(objects: Sequence[Asked], maps: Sequence[np.ndarray], energy: float) -> dict:
    """energy: Grad-CAM's mean share of the map on the object."""
    pictures = np.array([each.picture for each in objects])
    near = np.array([is_near(each, of.inside) for each, of in zip(maps, objects, strict=True)], float)
    row = row_of(objects, maps, None)
    times = f"{measured(objects, maps)['energy'].mean() / energy:.2f}"
    return {"hit": row.pop("hit"), f"at most {BESIDE} px beside": with_interval(near, pictures), **row, "times": times}


def is_near(cam_map: np.ndarray, inside: np.ndarray) -> bool:
    highest = np.unravel_index(cam_map.argmax(), cam_map.shape)
    return bool(cam_map.any()) and float(distance_transform_edt(~inside)[highest]) <= BESIDE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=100)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = {}
    for key in ("lite0", "lite1", "lite2"):
        network = NETWORKS[key]()
        objects = list(asked(network, scenes(network.size, arguments.scenes)))
        maps = {method: maps_of(network.model, method, None, objects, "cell")[0] for method in METHODS}
        maps["PathCAM, registered"] = maps_of(network.model, "PathCAM", None, objects, "receptive_field")[0]
        pairs = zip(maps["FullGrad"], maps["GradCAM"], strict=True)
        maps[PRODUCT] = [whole**3 * coarse for whole, coarse in pairs]
        energy = measured(objects, maps["GradCAM"])["energy"].mean()
        for method, of_method in maps.items():
            rows[f"{network.name}, {method}"] = pointing_row(objects, of_method, energy)
        sys.stderr.write(f"{network.name}: {len(objects)} objects\n")
    write_report("real_pointing", rows, f"{arguments.scenes} scenes; times: energy over Grad-CAM's")


if __name__ == "__main__":
    main()
