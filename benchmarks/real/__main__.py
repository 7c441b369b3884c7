"""Do the maps of trained networks point at the object? `python -m benchmarks.real`, our methods, plain and registered.

EfficientNet-Lite 0, 1 and 2 (ImageNet) on photos with boxes and on scenes of two cut-outs. Of the objects among the
network's five highest classes: how often the map's maximum lies on the object (hit) or on the other one (wrong), and
the share of the map on it (energy), each with its 95 % interval by bootstrap over the pictures. The layers are found,
for LayerCAM earlier ones are named too; registered maps are measured with eight other scenes. Packages are fetched
once, 300 MB, into the user's cache.
"""

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch

import pytorch_grad_cam
from benchmarks.real.networks import Network, efficientnet_lite
from benchmarks.real.packages import EFFICIENTNETS, GRADIO, SCIKIT_IMAGE, STAMPS
from benchmarks.real.pictures import Picture, photos, scenes
from benchmarks.report import rows_of, write_report
from pytorch_grad_cam.locate import locate
from pytorch_grad_cam.registration import registration_of

METHODS = (
    "GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "HiResCAM", "GradCAMElementWise", "EigenCAM", "EigenGradCAM",
    "KPCA_CAM", "FEM", "ShapleyCAM", "RefineCAM", "FullGrad",
)  # fmt: skip
# Earlier layers, by name, for LayerCAM alone: where registration has more to correct than at the last one.
STAGES = ("blocks.2", "blocks.4", "blocks.5")
ALIGNMENTS = {"": "cell", ", registered": "receptive_field"}
PROBES = 8
TOP = 5
DRAWS = 1000


def asked(
    network: Network, pictures: Iterator[Picture]
) -> Iterator[tuple[int, torch.Tensor, int, np.ndarray, np.ndarray]]:
    """For each object among the network's highest classes: which picture, the input, the class, the object, the rest of
    the objects.
    """
    for number, picture in enumerate(pictures):
        x = network.input_of(torch.from_numpy(picture.pixels))
        with torch.no_grad():
            highest = network.model(x)[0].topk(TOP).indices.tolist()
        for category, inside in picture.objects:
            others = [mask for other, mask in picture.objects if other != category]
            if category in highest:
                yield number, x, category, inside, np.any([np.zeros_like(inside), *others], axis=0)


def figures(cam_map: np.ndarray, inside: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Hit, wrong and energy of one map."""
    highest = np.unravel_index(cam_map.argmax(), cam_map.shape)
    total = cam_map.sum()
    return float(inside[highest]), float(other[highest]), float(cam_map[inside].sum() / total) if total else 0.0


def interval(values: np.ndarray, pictures: np.ndarray) -> str:
    """The mean and its 95 % interval; whole pictures are drawn, since two objects of one are not independent."""
    generator, groups = np.random.default_rng(0), [values[pictures == number] for number in np.unique(pictures)]
    sums, counts = np.array([group.sum() for group in groups]), np.array([len(group) for group in groups])
    drawn = generator.integers(0, len(groups), (DRAWS, len(groups)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return f"{values.mean():.2f} ({low:.2f}-{high:.2f})"


def measure(network: Network) -> None:
    """Let the network's registrations be measured with scenes; the answer is kept for the model."""
    probes = torch.cat([network.input_of(torch.from_numpy(s.pixels)) for s in scenes(network.size, PROBES, seed=1)])
    for layer in [*locate(network.model, probes[:1]).layers, *STAGES]:
        registration_of(network.model, layer, probes)


def row(network: Network, method: str, layer: str | None, align: str, kind: str, count: int) -> dict[str, object]:
    """One row of the table. layer: None is the one that is found."""
    pictures = photos(network.size) if kind == "photos" else scenes(network.size, count)
    layers = [] if method == "FullGrad" else layer
    found, numbers = [], []
    with getattr(pytorch_grad_cam, method)(network.model, layers, align=align) as cam:
        for number, x, category, inside, other in asked(network, pictures):
            found.append(figures(cam(x, category)[0], inside, other))
            numbers.append(number)
    columns = zip(("hit", "wrong", "energy"), np.array(found).T, strict=True)
    return {**{name: interval(values, np.array(numbers)) for name, values in columns}, "objects": len(found)}


def entries(methods: Sequence[str]) -> Iterator[tuple[str, str, str | None]]:
    """Kind of pictures, method and layer of each row."""
    for kind in ("scenes", "photos"):
        for method in methods:
            yield kind, method, None
    if "LayerCAM" in methods:
        yield from (("scenes", "LayerCAM", layer) for layer in STAGES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--networks", nargs="+", type=int, choices=(0, 1, 2), default=(0, 1, 2))
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--add", action="store_true", help="to the rows of an earlier run")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = rows_of("real") if arguments.add else {}
    for number in arguments.networks:
        network = efficientnet_lite(number)
        measure(network)
        for kind, method, layer in entries(arguments.methods):
            for said, align in ALIGNMENTS.items():
                at = f" at {layer}" if layer else ""
                label = f"{network.name}, {kind}, {method}{at}{said}"
                if label not in rows:
                    rows[label] = row(network, method, layer, align, kind, arguments.scenes)
                    sys.stderr.write(f"{label}: {rows[label]}\n")
    packages = (*EFFICIENTNETS, SCIKIT_IMAGE, GRADIO, STAMPS)
    used = "; ".join(f"{p.gives}: {p.name} {p.version} of {p.registry}, {p.licence}" for p in packages)
    write_report("real", rows, used)


if __name__ == "__main__":
    main()
