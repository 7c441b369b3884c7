"""The base method's maps of the windows on an image, joined to one map."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.engine.cam_warning import maps_are_parts, warn_of_blank
from pytorch_grad_cam.engine.chunks import in_chunks
from pytorch_grad_cam.engine.classes_in_outputs import for_other_images
from pytorch_grad_cam.engine.inputs import Inputs, call, image_of, rows_of, with_image
from pytorch_grad_cam.engine.maps import min_max
from pytorch_grad_cam.engine.targets import Target, Targets, chosen, resolve_targets, several_an_image, target_scores
from pytorch_grad_cam.meta_cam import MetaCAM
from pytorch_grad_cam.perturbation.sliding_windows import EnlargedImage, Window, fused, windows_on


@dataclass
class WindowMaps:
    """Maps of whole images from maps of their windows.

    scales: lengths of the image's shortest side; None is `num_scales` of them from the window's size on, each longer by
    `scale_step_ratio` of it. window_size: None is the image's shortest side. step_size: None is the window's size.
    pre_filter_ratio: the share of each image's windows, those with the lowest scores, that is left out.
    pool: 'mean' of the values above `theta` at each position, or 'max'. smooth: blur the result.
    use_softmax_scores: windows are weighted by the target's score of the softmax of the logits, where there is one
    logit by the sigmoid of its score; else by that of the logits.
    batch_size: windows at a time.
    """

    base_cam: Any
    scales: Sequence[int] | None
    num_scales: int
    scale_step_ratio: float
    window_size: int | None
    step_size: int | None
    pre_filter_ratio: float
    theta: float
    pool: str
    smooth: bool
    use_softmax_scores: bool
    batch_size: int

    def __post_init__(self) -> None:
        if self.pool not in ("mean", "max"):
            raise ValueError(f"pool is {self.pool!r}, expected 'mean' or 'max'")
        if not 0 <= self.pre_filter_ratio < 1:
            raise ValueError(f"pre_filter_ratio is {self.pre_filter_ratio}, expected a share in [0, 1)")
        for name in ("num_scales", "window_size", "step_size"):
            size = getattr(self, name)
            if size is not None and (size < 1 or size != int(size)):
                raise ValueError(f"{name} is {size}, expected a whole number, at least 1")

    def __call__(self, inputs: Inputs, scores: Any, targets: Targets, smoothing: dict[str, bool]) -> torch.Tensor:
        """Maps (N, *spatial) of images (N, C, *spatial), scaled to [0, 1]; for K targets an image (N, K, *spatial).

        inputs: what the model is called with, for windows with another image. scores: what targets read of the images.
        All windows of an image explain the same target.
        """
        targets = chosen(targets, scores)
        columns = several_an_image(targets)
        if columns is not None:
            return torch.stack([self(inputs, scores, column, smoothing) for column in columns], dim=1)
        images = image_of(inputs, self.base_cam.spatial_from)
        resolved = for_other_images(resolve_targets(targets, scores, images.shape))
        if not resolved:
            return images.new_zeros(0, *images.shape[2:])
        with maps_are_parts():
            maps = torch.stack([self._map(inputs, row, target, smoothing) for row, target in enumerate(resolved)])
        blank = (~maps.flatten(1).any(1)).nonzero()[:, 0].tolist()
        if blank:
            warn_of_blank(blank, len(maps), "so are those of all windows")
        return min_max(maps)

    def _map(self, inputs: Inputs, sample: int, target: Target, smoothing: dict[str, bool]) -> torch.Tensor:
        spatial_from = self.base_cam.spatial_from
        images = image_of(inputs, spatial_from)
        image = images[sample]
        windows = self._windows(image.shape[1:])
        enlarged = EnlargedImage(image, windows)

        def inputs_of(some: Sequence[Window]) -> Inputs:
            rows = torch.full((len(some),), sample)
            return with_image(rows_of(inputs, rows, len(images)), enlarged.cut(some), spatial_from)

        if self.pre_filter_ratio:
            windows = self._best(windows, inputs_of, target)

        def map_and_score(start: int, stop: int) -> torch.Tensor:
            parts = inputs_of(windows[start:stop])
            maps = torch.as_tensor(self.base_cam(parts, [target] * (stop - start), **smoothing, **self._as_tensor()))
            scores = self._scores(self.base_cam.outputs, target)
            return torch.cat([maps.to(scores).flatten(1), scores[:, None]], dim=1)

        found = in_chunks(map_and_score, len(windows), self.batch_size, "SESS windows")
        maps = found[:, :-1].reshape(-1, *[windows[0].size] * (image.ndim - 1))
        return fused(windows, maps, found[:, -1], image.shape[1:], self.pool, self.theta, self.smooth)

    def _windows(self, image_size: Sequence[int]) -> list[Window]:
        size = self.window_size or min(image_size)
        growth = round(size * self.scale_step_ratio)
        scales = [size + growth * index for index in range(self.num_scales)] if self.scales is None else self.scales
        return windows_on(image_size, scales, size, self.step_size or size)

    def _best(
        self, windows: Sequence[Window], inputs_of: Callable[[Sequence[Window]], Inputs], target: Target
    ) -> list[Window]:
        def score(start: int, stop: int) -> torch.Tensor:
            return self._scores(call(self.base_cam.model, inputs_of(windows[start:stop])), target)

        ascending = in_chunks(score, len(windows), self.batch_size, "SESS windows").argsort(stable=True)
        return [windows[index] for index in ascending[int(len(windows) * self.pre_filter_ratio) :].tolist()]

    def _scores(self, outputs: Any, target: Target) -> torch.Tensor:
        scores = self.base_cam.output_transform(outputs)
        probable = self.use_softmax_scores and isinstance(scores, torch.Tensor)
        single = probable and (scores.ndim == 1 or scores.shape[1] == 1)
        scored = scores.softmax(1) if probable and not single else scores
        found = target_scores(scored, [target] * len(scored)).float()
        return found.sigmoid() if single else found

    def _as_tensor(self) -> dict[str, bool]:
        """Maps that stay on the device, where the base method's call is ours and knows how."""
        ours = type(self.base_cam).__call__ in (BaseCAM.__call__, MetaCAM.__call__)
        return {"as_tensor": True} if ours else {}
