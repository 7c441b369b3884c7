"""The base method's maps of the windows on an image, joined to one map."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pytorch_grad_cam.chunks import in_chunks
from pytorch_grad_cam.sliding_windows import EnlargedImage, SlidingWindows, Window, WindowFusion
from pytorch_grad_cam.target_scores import Target, Targets, resolve_targets, target_scores


@dataclass
class WindowMaps:
    """Maps of whole images from maps of their windows.

    pre_filter_ratio: the share of each image's windows, those with the lowest scores, that is left out.
    use_softmax_scores: targets score the softmax of the logits. batch_size: windows at a time.
    """

    base_cam: Any
    windows: SlidingWindows
    fusion: WindowFusion
    pre_filter_ratio: float
    use_softmax_scores: bool
    batch_size: int

    def __post_init__(self) -> None:
        if not 0 <= self.pre_filter_ratio < 1:
            raise ValueError(f"pre_filter_ratio is {self.pre_filter_ratio}, expected a share in [0, 1)")

    def __call__(
        self, images: torch.Tensor, outputs: Any, targets: Targets, smoothing: dict[str, bool]
    ) -> torch.Tensor:
        """Maps (N, *spatial) of images (N, C, *spatial), not scaled; all windows of an image explain its one target."""
        resolved = resolve_targets(targets, outputs)
        return torch.stack([self._map(*pair, smoothing) for pair in zip(images, resolved, strict=True)])

    def _map(self, image: torch.Tensor, target: Target, smoothing: dict[str, bool]) -> torch.Tensor:
        windows = self.windows.on(image.shape[1:])
        enlarged = EnlargedImage(image, windows)
        if self.pre_filter_ratio:
            windows = self._best(windows, enlarged, target)

        def map_and_score(start: int, stop: int) -> torch.Tensor:
            parts = enlarged.cut(windows[start:stop])
            maps = self.base_cam(parts, [target] * len(parts), **smoothing, as_tensor=True)
            return torch.cat([maps.flatten(1), self._scores(self.base_cam.outputs, target)[:, None]], dim=1)

        found = in_chunks(map_and_score, len(windows), self.batch_size, "SESS windows")
        maps = found[:, :-1].reshape(-1, *[windows[0].size] * (image.ndim - 1))
        return self.fusion(windows, maps, found[:, -1], image.shape[1:])

    def _best(self, windows: Sequence[Window], enlarged: EnlargedImage, target: Target) -> list[Window]:
        def score(start: int, stop: int) -> torch.Tensor:
            return self._scores(self.base_cam.model(enlarged.cut(windows[start:stop])), target)

        ascending = in_chunks(score, len(windows), self.batch_size, "SESS windows").argsort(stable=True)
        return [windows[index] for index in ascending[int(len(windows) * self.pre_filter_ratio) :].tolist()]

    def _scores(self, outputs: torch.Tensor, target: Target) -> torch.Tensor:
        scored = outputs.softmax(-1) if self.use_softmax_scores else outputs
        return target_scores(scored, [target] * len(scored)).relu().float()
