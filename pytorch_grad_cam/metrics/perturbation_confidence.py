"""What a score becomes when the image is changed as a map says."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.engine.chunks import images_at_a_time, in_chunks
from pytorch_grad_cam.engine.inputs import call, model_device, on_device_of
from pytorch_grad_cam.engine.targets import Target, Targets, resolve_targets, scores_in, target_scores
from pytorch_grad_cam.engine.torch_quirks.memory_layout import in_fastest_layout
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.utils.regions import otsu_mask

Perturbation = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
_Call = TypeVar("_Call", bound=Callable[..., Any])


def takes_batches(call: _Call) -> _Call:
    """Marks the `__call__` of an imputer that also takes images (N, C, H, W) with masks (N, H, W), on any device.

    The metrics then call it once for all images and all percentiles whose imputers are equal. A subclass that writes
    another `__call__` is called image by image again, unless it marks its own.
    """
    call.takes_batches = True  # type: ignore[attr-defined]
    return call


class Versions(NamedTuple):
    """Perturbed versions of each of R rows, a row for each map, made when they are shown to the model.

    times: how many of each row. make: from the numbers of versions (B,) and of rows (B,) to images (B, C, *spatial).
    """

    times: int
    make: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class PerturbationConfidenceMetric:
    """The score of the perturbed image less that of the image.

    perturbation: from an image (C, H, W) and its map (H, W), both on the host, to the perturbed image. One that removes
    pixels by an imputer that takes batches (see `takes_batches`) works on the images' device instead.
    """

    def __init__(self, perturbation: Perturbation) -> None:
        self.perturbation = perturbation

    def of_change(self, change: np.ndarray) -> np.ndarray:
        """The metric of changes of scores: the changes themselves."""
        return change

    def versions(self, images: torch.Tensor, maps: torch.Tensor) -> Versions:
        """The one perturbed version of each image, see `shared_scores.ScoreMetric`."""
        return versions_of([self.perturbation], images, maps)

    def of_scores(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """The metric (R,) of the scores (R,) of the images and (1, R) of their perturbed versions."""
        return torch.from_numpy(np.asarray(self.of_change((after[0] - before).cpu().numpy())))

    def __call__(
        self,
        input_tensor: torch.Tensor,
        cams: np.ndarray | torch.Tensor,
        targets: Targets,
        model: nn.Module,
        return_visualization: bool = False,
        return_diff: bool = True,
    ) -> Any:
        """One number an image: float32 (N,).

        targets: as those of a CAM, one an image; classes that are not given are those of the unchanged images.
        return_diff: False gives the perturbed images' scores. return_visualization: returns the perturbed images too.
        Raises ValueError for maps that are not finite or not of the images' number and size.
        Cost: two forwards of each image.
        """
        before, resolved = clean_scores(model, input_tensor, targets)
        maps = maps_of(input_tensor, cams)
        first, rows = torch.zeros(len(maps), dtype=torch.long), torch.arange(len(maps))
        images = versions_of([self.perturbation], input_tensor, maps).make(first, rows)
        after = scores_of(model, images, resolved)
        result = self.of_change((after - before).cpu().numpy()) if return_diff else after.cpu().numpy()
        return (result, images) if return_visualization else result


class RemoveMostRelevantFirst:
    """Removes the most relevant pixels of an image: keeps `percentile` percent of them, the least relevant ones.

    Exactly that share is kept whatever the map's values: among equal ones those that come first, row by row.
    percentile: 'auto' removes what is above Otsu's threshold. imputer: from the image (C, H, W) and a mask (H, W), 1
    where a pixel is kept and 0 where not, to the image without those pixels.
    Raises ValueError for a percentile outside [0, 100].
    Paper: Rong et al. 2022, https://arxiv.org/abs/2202.00449.
    """

    def __init__(self, percentile: float | Literal["auto"], imputer: Perturbation) -> None:
        if percentile != "auto" and not 0 <= percentile <= 100:
            raise ValueError(f"percentile is {percentile}, expected 'auto' or a number in [0, 100]")
        self.percentile = percentile
        self.imputer = imputer

    def __call__(self, input_tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The image (C, H, W) without the pixels that are most relevant in the map `mask` (H, W)."""
        return self.imputer(input_tensor, self.kept(mask[None])[0])

    def kept(self, maps: torch.Tensor) -> torch.Tensor:
        """The masks (N, H, W) of maps (N, H, W), on their device: 1 where a pixel is kept, 0 elsewhere.

        The host finds Otsu's thresholds, image by image; percentiles are found on the maps' device.
        """
        return _below_otsu(maps) if self.percentile == "auto" else _lowest(maps, self.percentile)


class RemoveLeastRelevantFirst(RemoveMostRelevantFirst):
    """Removes the least relevant pixels of an image: keeps `percentile` percent of them, the most relevant ones.

    Paper: Rong et al. 2022, https://arxiv.org/abs/2202.00449.
    """

    def kept(self, maps: torch.Tensor) -> torch.Tensor:
        """The masks (N, H, W) of maps (N, H, W), on their device: 1 where a pixel is kept, 0 elsewhere."""
        return super().kept(1 - maps)


class AveragerAcrossThresholds:
    """The mean over percentiles, at least one, of a metric.

    imputer: from a percentile to a PerturbationConfidenceMetric. Raises ValueError for no percentiles.
    """

    def __init__(
        self,
        imputer: Callable[[Any], PerturbationConfidenceMetric],
        percentiles: Sequence[Any] = (10, 20, 30, 40, 50, 60, 70, 80, 90),
    ) -> None:
        if len(percentiles) == 0:
            raise ValueError(f"percentiles is {percentiles}, expected at least one, such as [20, 80]")
        self.imputer = imputer
        self.percentiles = percentiles

    @property
    def metrics(self) -> list[PerturbationConfidenceMetric]:
        """One for each percentile."""
        return [self.imputer(percentile) for percentile in self.percentiles]

    def __call__(
        self, input_tensor: torch.Tensor, cams: np.ndarray | torch.Tensor, targets: Targets, model: nn.Module
    ) -> np.ndarray:
        """One number an image: float32 (N,). Cost: 1 + percentiles forwards of each image, in shared batches."""
        metrics = self.metrics
        before, resolved = clean_scores(model, input_tensor, targets)
        if any(type(metric).__call__ is not PerturbationConfidenceMetric.__call__ for metric in metrics):
            return _mean([metric(input_tensor, cams, resolved, model) for metric in metrics])
        changes = (perturbed_scores(metrics, model, input_tensor, cams, resolved) - before).cpu().numpy()
        return _mean([metric.of_change(change) for metric, change in zip(metrics, changes, strict=True)])


def _mean(of_metrics: Sequence[np.ndarray]) -> np.ndarray:
    mean: np.ndarray = np.mean(of_metrics, axis=0)
    return mean


def perturbed_scores(
    metrics: Sequence[PerturbationConfidenceMetric],
    model: nn.Module,
    input_tensor: torch.Tensor,
    cams: np.ndarray | torch.Tensor,
    targets: Sequence[Target],
) -> torch.Tensor:
    """The scores (metrics, N) of the images perturbed by each metric, in shared batches."""
    versions = versions_of([metric.perturbation for metric in metrics], input_tensor, maps_of(input_tensor, cams))
    return scores_of_versions(model, [versions], input_tensor.device, targets)


def clean_scores(model: nn.Module, images: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, Sequence[Target]]:
    """The scores (N,) of unchanged images and their targets, one an image. Cost: one forward."""
    with undisturbed(model), torch.no_grad():
        outputs = scores_in(call(model, on_device_of(model, images)))
        resolved = resolve_targets(targets, outputs, images.shape)
        return target_scores(outputs, resolved).float(), resolved


def scores_of(model: nn.Module, images: torch.Tensor, targets: Sequence[Target]) -> torch.Tensor:
    """The targets' scores (N,), one an image, in batches."""
    return scores_of_versions(model, [Versions(1, lambda _, rows: images[rows])], images.device, targets)[0]


def scores_of_versions(
    model: nn.Module, versions: Sequence[Versions], device: torch.device, targets: Sequence[Target]
) -> torch.Tensor:
    """The scores (versions, R) of all versions of all rows, in shared batches, each made when its turn comes.

    device: where the versions are made. targets: one a row. Cost: a forward of each version of each row.
    """
    rows = len(targets)
    listed = [*targets]
    ends = np.cumsum([each.times * rows for each in versions])

    def made(start: int, stop: int) -> torch.Tensor:
        parts = []
        for each, end in zip(versions, ends.tolist(), strict=True):
            begin = end - each.times * rows
            if start < end and stop > begin:
                flat = torch.arange(max(start, begin) - begin, min(stop, end) - begin, device=device)
                parts.append(each.make(flat // rows, flat % rows))
        return torch.cat(parts)

    def scores(start: int, stop: int) -> torch.Tensor:
        chunk = on_device_of(model, made(start, stop))
        of_chunk = [listed[each % rows] for each in range(start, stop)]
        return target_scores(scores_in(in_fastest_layout(model, model, chunk)), of_chunk).float()

    size = images_at_a_time(model_device(model) or device)
    with undisturbed(model), torch.no_grad():
        return in_chunks(scores, int(ends[-1]), size, "perturbed images").reshape(-1, rows)


def maps_of(images: torch.Tensor, cams: np.ndarray | torch.Tensor) -> torch.Tensor:
    """The maps where they are, (N, *spatial) for images (N, C, *spatial); (N, 1, *spatial) will do.

    Raises ValueError for maps that are not finite or not of the images' number and size.
    """
    maps = torch.as_tensor(cams).detach()
    expected = (len(images), *images.shape[2:])
    if maps.shape == (len(images), 1, *images.shape[2:]):
        maps = maps[:, 0]
    if maps.shape != expected:
        raise ValueError(
            f"the maps have shape {tuple(maps.shape)}, expected {expected} for images {tuple(images.shape)}"
        )
    if not maps.isfinite().all():
        raise ValueError("the maps are not finite")
    return maps


def versions_of(perturbations: Sequence[Perturbation], images: torch.Tensor, maps: torch.Tensor) -> Versions:
    """A version by each perturbation. maps: (R, *spatial); row r is of image r modulo the number of images."""
    removals = [each for each in perturbations if isinstance(each, RemoveMostRelevantFirst)]
    if len(removals) == len(perturbations) and _can_share_a_call(removals):
        masks = torch.stack([removal.kept(maps.to(images.device)) for removal in removals])
        return Versions(
            len(removals), lambda which, rows: removals[0].imputer(images[rows % len(images)], masks[which, rows])
        )

    def one_by_one(which: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        pairs = zip(which.tolist(), rows.tolist(), strict=True)
        made = [perturbations[each](images[row % len(images)].cpu(), maps[row].cpu()) for each, row in pairs]
        return torch.stack(made).to(images)

    return Versions(len(perturbations), one_by_one)


def _can_share_a_call(removals: Sequence[RemoveMostRelevantFirst]) -> bool:
    """Whether equal imputers that take batches do all that the removals do."""
    imputer = removals[0].imputer
    return getattr(type(imputer).__call__, "takes_batches", False) and all(
        removal.imputer == imputer and type(removal).__call__ is RemoveMostRelevantFirst.__call__
        for removal in removals
    )


def _lowest(maps: torch.Tensor, percentile: float) -> torch.Tensor:
    """1 at each map's pixels below the percentile, 0 elsewhere; as many as are below NumPy's where no two are equal."""
    values = maps.flatten(1)
    count = math.ceil((values.shape[1] - (percentile < 100)) * percentile / 100)
    lowest = values.argsort(dim=1, stable=True)[:, :count]
    return torch.zeros(values.shape, device=maps.device).scatter(1, lowest, 1).reshape(maps.shape)


def _below_otsu(maps: torch.Tensor) -> torch.Tensor:
    above = np.stack([otsu_mask(cam) for cam in maps.float().cpu().numpy()])
    return 1 - torch.from_numpy(above).to(maps.device, torch.float32)
