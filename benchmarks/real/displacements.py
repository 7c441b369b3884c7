"""Where do the cells of trained networks look, and what does each rule say? `python -m benchmarks.real.displacements`.

For each layer the displacement of LayerCAM's plain maps at which most of their heat lies on the objects of scenes whose
places are known, from even tiles, further down and right: the truth. Against it, in pixels, the mean absolute error of
the two axes: of even tiles; of geometry; of what a call measures by itself, with noise; and of what 24 photographs
measure. EfficientNet-Lite2 and CenterNet were kept aside while the rule was chosen.

The truth is good to about 2 px where cells are 32 px apart. Each row is written when it is measured; `--add` goes on.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch

from benchmarks.real.__main__ import Asked, asked, maps_of
from benchmarks.real.networks import NETWORKS, Network
from benchmarks.real.pictures import photos, scenes
from benchmarks.report import rows_of, write_report
from pytorch_grad_cam.registration import registration_of

NAME = "real_displacements"
PHOTOS = 24
# The share of the displacements whose mean is the best one: the single best jumps from pixel to pixel.
_BEST = 0.1


def layers_of(network: Network) -> list[str]:
    """The layers that are measured: of an EfficientNet the ends of its stages, too."""
    stages = ["blocks.1", "blocks.3", "blocks.6"] if network.name.startswith("Lite") else []
    return list(dict.fromkeys([*sorted([*stages, *network.named]), network.last]))


def heat_by_displacement(cam_map: np.ndarray, inside: np.ndarray, reach: int) -> np.ndarray:
    """The share of a map on the object when the map is moved by up to `reach` pixels: (2 reach + 1, 2 reach + 1), down
    and right; what leaves the image is lost.
    """
    size = [length + 2 * reach for length in cam_map.shape]
    spectrum = np.conj(np.fft.rfft2(cam_map, size)) * np.fft.rfft2(inside.astype(float), size)
    moves = np.arange(-reach, reach + 1)
    return np.fft.irfft2(spectrum, size)[np.ix_(moves, moves)] / cam_map.sum()


def best_displacement(heat: np.ndarray) -> np.ndarray:
    """The middle of the displacements with the most heat, weighted by what it exceeds the others'."""
    excess = np.clip(heat - np.quantile(heat, 1 - _BEST), 0, None)
    moves = np.arange(len(heat)) - len(heat) // 2
    return np.array([excess.sum(1) @ moves, excess.sum(0) @ moves]) / excess.sum()


def row_of(network: Network, layer: str, objects: Sequence[Asked]) -> dict:
    x = objects[0].input
    module = network.model.get_submodule(layer)
    shifts = {"tiles": (0.0, 0.0)}
    shifts["geometry"] = registration_of(network.model, module, x, measure=False).shift
    registration = registration_of(network.model, module, x)
    shifts["noise"] = registration.shift
    taken = [network.input_of(torch.from_numpy(each.pixels)) for each in islice(photos(network.size), PHOTOS)]
    shifts[f"{PHOTOS} photographs"] = registration_of(network.model, module, torch.cat(taken)).shift
    maps, _ = maps_of(network.model, "LayerCAM", [layer], objects, "cell")
    reach = round(max(registration.step))
    pairs = [(each, of.inside) for each, of in zip(maps, objects, strict=True) if each.any()]
    truth = best_displacement(np.mean([heat_by_displacement(*pair, reach) for pair in pairs], axis=0))
    errors = {f"error of {name}": round(float(np.abs(truth - shift).mean()), 1) for name, shift in shifts.items()}
    looks = ", ".join(f"{moved:+.0f}" for moved in truth)
    return {"cells every": f"{registration.step[0]:.3g} px", "objects": len(pairs), "they look, px": looks, **errors}


def summary(rows: dict[str, dict]) -> dict[str, dict]:
    """The rows, and behind them their means and in how many layers each rule is worse than tiles by more than 1 px."""
    columns = [column for column in next(iter(rows.values())) if column.startswith("error of ")]
    errors = {column: np.array([row[column] for row in rows.values()]) for column in columns}
    tiles = errors["error of tiles"]
    means = {column: round(float(values.mean()), 1) for column, values in errors.items()}
    worse = {column: int((values > tiles + 1).sum()) for column, values in errors.items() if values is not tiles}
    return {**rows, f"mean of {len(rows)} layers": means, "layers worse than tiles by more than 1 px": worse}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["lite0", "lite1", "lite2", "nanodet"])
    parser.add_argument("--scenes", type=int, default=160)
    parser.add_argument("--add", action="store_true", help="to the rows of an earlier run")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = {name: row for name, row in rows_of(NAME).items() if "objects" in row} if arguments.add else {}
    for key in arguments.networks:
        network = NETWORKS[key]()
        objects = list(asked(network, scenes(network.size, arguments.scenes, of_coco=network.is_coco)))
        for layer in layers_of(network):
            name = f"{network.name}, {layer.rpartition('tf_prefix_')[2].rpartition('CenternetHead_')[2]}"
            if name not in rows:
                rows[name] = row_of(network, layer, objects)
                sys.stderr.write(f"{name}: {rows[name]}\n")
                write_report(NAME, summary(rows), f"{arguments.scenes} scenes")


if __name__ == "__main__":
    main()
