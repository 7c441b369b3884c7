"""Images: network input, and heat maps over pictures."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch

from pytorch_grad_cam.engine.maps import min_max, resize
from pytorch_grad_cam.engine.optional_packages import needing
from pytorch_grad_cam.registration.registration import Registration

_JET = 2
# Interpolation and averaging in float32 overshoot by less; a map that exceeds [0, 1] by more was never scaled.
_OVERSHOOT = 0.05


def preprocess_image(
    img: np.ndarray, mean: Sequence[float] = (0.5, 0.5, 0.5), std: Sequence[float] = (0.5, 0.5, 0.5)
) -> torch.Tensor:
    """An image (H, W, C), float in [0, 1] or uint8, as a normalised float32 batch (1, C, H, W).

    Raises ValueError for other shapes, types and ranges.

    >>> preprocess_image(np.zeros((8, 6, 3), np.uint8)).shape
    torch.Size([1, 3, 8, 6])
    """
    if np.ndim(img) != 3 or np.shape(img)[2] not in (1, len(mean)):
        raise ValueError(f"the image has shape {np.shape(img)}, expected (H, W, {len(mean)})")
    pixels = torch.from_numpy(np.array(unit_range(img), dtype=np.float32)).movedim(-1, 0)
    statistics = [torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1) for values in (mean, std)]
    return ((pixels - statistics[0]) / statistics[1])[None]


def deprocess_image(img: np.ndarray) -> np.ndarray:
    """A uint8 picture of any array, such as a gradient: its mean is mid-grey, 0 to 255 are ten standard deviations.

    Raises ValueError for an empty array and for values that are not real and finite.
    """
    img = np.asarray(img)
    if img.size == 0 or img.dtype.kind not in "biuf" or not np.isfinite(img).all():
        raise ValueError(f"the array has shape {img.shape} and dtype {img.dtype}, expected finite real numbers")
    centred = img.astype(np.float64) - np.mean(img, dtype=np.float64)
    scaled = 0.1 * centred / (np.std(centred) + 1e-5) + 0.5
    return (255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def scale_cam_image(
    cam: np.ndarray, target_size: Sequence[int] | None = None, align: Literal["cell"] | Registration = "cell"
) -> np.ndarray:
    """Maps (N, *spatial) scaled to [0, 1] one by one, then enlarged; float32. A constant map becomes zeros.

    target_size: (width, height), for volumes (width, height, depth), the order of OpenCV.
    align: 'cell' enlarges as even tiles; a Registration (see `registration_of`) draws each cell where it looks.
    Raises ValueError for a registration of another size, maps and sizes of other forms, and values that are not finite.

    >>> scale_cam_image(np.array([[[2.0, 4.0], [6.0, 10.0]]]))
    array([[[0.  , 0.25],
            [0.5 , 1.  ]]], dtype=float32)
    """
    array = np.asarray(cam)
    if array.ndim not in (2, 3, 4) or array.size == 0 or array.dtype.kind not in "biuf":
        raise ValueError(f"maps of shape {array.shape} and dtype {array.dtype}, expected numbers (N, *spatial)")
    values = torch.as_tensor(np.ascontiguousarray(array, dtype=np.float32))
    if not values.isfinite().all():
        raise ValueError("the maps are not finite: np.nan_to_num(maps, posinf=0, neginf=0) puts 0 in the place")
    maps = min_max(values)
    if target_size is not None:
        size = tuple(target_size)[::-1]
        if len(size) != array.ndim - 1 or not all(isinstance(s, int | np.integer) and s > 0 for s in size):
            raise ValueError(f"the target size is {target_size}, expected {array.ndim - 1} positive whole numbers")
        maps = _enlarged(maps[:, None], size, align)[:, 0]
    return maps.numpy()


def _enlarged(maps: torch.Tensor, size: tuple[int, ...], align: Literal["cell"] | Registration) -> torch.Tensor:
    if not isinstance(align, Registration):
        if align != "cell":
            raise ValueError(f"align is {align!r}: pass what registration_of(model, layer, x) returns, or 'cell'")
        return resize(maps, size)
    if size != align.image_size:
        raise ValueError(f"the registration is for images of {align.image_size}, not for the target size {size}")
    return align.enlarge(maps)


def scale_accross_batch_and_channels(
    tensor: np.ndarray, target_size: Sequence[int], align: Literal["cell"] | Registration = "cell"
) -> np.ndarray:
    """Maps (N, C, *spatial), every channel scaled to [0, 1] by itself and enlarged, as in `scale_cam_image`."""
    if np.ndim(tensor) < 3:
        raise ValueError(f"maps of shape {np.shape(tensor)}, expected (N, C, *spatial)")
    maps = scale_cam_image(np.reshape(tensor, (-1, *tensor.shape[2:])), target_size, align)
    return maps.reshape(*tensor.shape[:2], *maps.shape[1:])


def show_cam_on_image(
    img: np.ndarray,
    mask: np.ndarray,
    use_rgb: bool = False,
    colormap: int = _JET,
    image_weight: float = 0.5,
) -> np.ndarray:
    """The picture with the heat map over it, uint8 (H, W, 3).

    img: (H, W, 3), float in [0, 1] or uint8. mask: (H, W) or (1, H, W) in [0, 1]; values outside by up to 0.05 are
    clipped. use_rgb: colour the map for an RGB picture; False is OpenCV's BGR. colormap: one of OpenCV's numbers.
    image_weight: in [0, 1].

    Raises ValueError for other shapes and ranges, and for NaN.

    >>> show_cam_on_image(np.zeros((1, 2, 3)), np.array([[0.0, 1.0]]), use_rgb=True, image_weight=0).tolist()
    [[[0, 0, 128], [128, 0, 0]]]
    """
    import cv2

    picture = np.clip(unit_range(img), 0, 1)
    heat = np.asarray(mask)
    if heat.ndim == 3 and len(heat) == 1:
        heat = heat[0]
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"the image has shape {picture.shape}, expected (H, W, 3)")
    if heat.shape != picture.shape[:2]:
        raise ValueError(
            f"the mask has shape {np.shape(mask)}, the image {picture.shape}: take the map of one image, "
            "and scale_cam_image(maps, target_size=(width, height)) to resize it"
        )
    check_range(heat, "mask")
    _check_weight(image_weight)
    colours = cv2.applyColorMap((255 * np.clip(heat, 0, 1)).astype(np.uint8), colormap)
    if use_rgb:
        colours = cv2.cvtColor(colours, cv2.COLOR_BGR2RGB)
    blend = (1 - image_weight) * np.asarray(colours, dtype=np.float32) / 255 + image_weight * picture
    overlay: np.ndarray = np.rint(255 * blend).astype(np.uint8)
    return overlay


def create_labels_legend(concept_scores: np.ndarray, labels: Mapping[int, str], top_k: int = 2) -> list[str]:
    r"""For each concept its `top_k` highest classes, one per line: 'name:score', with up to three synonyms of the name.

    concept_scores: (concepts, classes). labels: the classes' names, synonyms separated by commas.

    >>> create_labels_legend(np.array([[0.1, 0.7, 0.2]]), {0: "cat", 1: "dog, hound", 2: "bird"})
    ['dog, hound:0.70\nbird:0.20']
    """
    highest = np.argsort(-np.asarray(concept_scores), axis=1, kind="stable")[:, :top_k]
    return [
        "\n".join(f"{','.join(labels[c].split(',')[:3])}:{scores[c]:.2f}" for c in categories.tolist())
        for scores, categories in zip(concept_scores, highest, strict=True)
    ]


def show_factorization_on_image(
    img: np.ndarray,
    explanations: np.ndarray,
    colors: Sequence[np.ndarray] | None = None,
    image_weight: float = 0.5,
    concept_labels: Sequence[str] | None = None,
) -> np.ndarray:
    """The picture with every pixel in the colour of its strongest concept, as bright as that is strong.

    img: (H, W, 3), float in [0, 1] or uint8. explanations: (concepts, H, W) in [0, 1]. colors: RGB in [0, 1], one for
    each concept; None takes them from matplotlib's gist_rainbow. image_weight: in [0, 1]. concept_labels: adds a legend
    of the picture's size to its right.

    Returns uint8 (H, W, 3), with a legend (H, 2 * W, 3). Raises ValueError for other shapes and ranges.
    """
    import cv2

    picture = np.clip(unit_range(img), 0, 1)
    if np.ndim(explanations) != 3 or np.shape(explanations)[1:] != picture.shape[:2]:
        raise ValueError(
            f"the explanations have shape {np.shape(explanations)}, expected (concepts, H, W) for {picture.shape}"
        )
    check_range(np.asarray(explanations), "explanations")
    _check_weight(image_weight)
    chosen = _rainbow(len(explanations)) if colors is None else colors
    if len(chosen) < len(explanations):
        raise ValueError(f"{len(chosen)} colors for {len(explanations)} concepts: pass one for each concept")
    colours = np.array([colour[:3] for colour in chosen], dtype=np.float32)
    hues = cv2.cvtColor(colours[None], cv2.COLOR_RGB2HSV)[0]
    painted = hues[np.argmax(explanations, axis=0)]
    painted[..., 2] = np.clip(np.max(explanations, axis=0), 0, 1)
    blend = image_weight * picture + (1 - image_weight) * cv2.cvtColor(painted, cv2.COLOR_HSV2RGB)
    result = (255 * blend).astype(np.uint8)
    return result if concept_labels is None else np.hstack((result, _legend(result.shape, colours, concept_labels)))


def _check_weight(image_weight: float) -> None:
    if not 0 <= image_weight <= 1:
        raise ValueError(f"image_weight is {image_weight}, expected a number in [0, 1]")


def _rainbow(count: int) -> list[np.ndarray]:
    with needing("matplotlib", "figures"):
        from matplotlib import colormaps

    return [np.array(colormaps["gist_rainbow"](index / count)) for index in range(count)]


def _legend(shape: Sequence[int], colours: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """A picture (H, W, 3) that names the colours."""
    import cv2
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    height, width = shape[:2]
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    lines = [Line2D([0], [0], color=colour, linewidth=5 * height / 256) for colour in colours]
    size = 14 * height / 256 / max(1, len(labels) / 6)
    figure.legend(lines, labels, loc="center", fontsize=size, fancybox=True, shadow=True)
    canvas.draw()
    return cv2.resize(np.asarray(canvas.buffer_rgba())[..., :3], (width, height))


def unit_range(img: np.ndarray) -> np.ndarray:
    """The image as floats in [0, 1]."""
    img = np.asarray(img)
    if img.dtype == np.uint8:
        return img.astype(np.float32) / 255
    if not np.issubdtype(img.dtype, np.floating):
        raise ValueError(f"the image has dtype {img.dtype}, expected uint8 or a float type with values in [0, 1]")
    check_range(img, "image")
    return img


def check_range(values: np.ndarray, name: str) -> None:
    """Raise ValueError for NaN and for values that lie further outside [0, 1] than interpolation overshoots."""
    lowest, highest = values.min(), values.max()
    if np.isnan(lowest):
        raise ValueError(f"the {name} contains NaN")
    if lowest < -_OVERSHOOT or highest > 1 + _OVERSHOOT:
        raise ValueError(f"the {name} has values from {lowest:.3g} to {highest:.3g}, expected [0, 1]")
