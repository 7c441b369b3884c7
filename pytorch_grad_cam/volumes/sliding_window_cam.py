"""Maps of volumes and clips that are larger than the model's input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn

from pytorch_grad_cam.base_cam import CamOptions
from pytorch_grad_cam.engine.cam_warning import CamWarning, issue, maps_are_parts, warn_of_blank
from pytorch_grad_cam.engine.chunks import in_chunks
from pytorch_grad_cam.engine.inputs import Inputs, call, on_device_of
from pytorch_grad_cam.engine.maps import fused, resize, scalings
from pytorch_grad_cam.engine.segmentation.segmentation_target import WherePredicted
from pytorch_grad_cam.engine.segmentation.segments import Segmented
from pytorch_grad_cam.engine.targets import (
    Target,
    TargetRule,
    Targets,
    chosen,
    class_of,
    one_a_sample,
    resolve_targets,
    several_an_image,
    target_scores,
)
from pytorch_grad_cam.engine.trees import to_array
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.meta_cam import MetaCAM
from pytorch_grad_cam.volumes.reach import Reach, reach_of
from pytorch_grad_cam.volumes.shared_weights import SharedWeights
from pytorch_grad_cam.volumes.stitching import Stitching
from pytorch_grad_cam.volumes.window_targets import (
    OF_REGION,
    cut,
    needs_whole_prediction,
    of_whole_prediction,
    of_windows,
)
from pytorch_grad_cam.volumes.windowed_inputs import WindowedInputs
from pytorch_grad_cam.volumes.windows import PaddingMode, Slices, Windows

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SlidingWindowCAM(MetaCAM):
    r"""Maps of images that are larger than the model's input, from windows: $L = \sum_w g_w L_w / \sum_w g_w$.

    Windows, their overlap and the Gaussian $g_w$ are MONAI's (`monai.inferers.SlidingWindowInferer`). $L_w$ is the base
    method's map of window w, rectified but not scaled, so that all windows have one scale; only the whole is scaled.
    Methods that give a channel one weight for all positions (Grad-CAM) take that of the whole image: the sum over the
    windows, each with the gradients of the cells where it counts most. Memory: a batch of windows on the model's
    device, and the map on the host; of an image in a file only the windows are read.

    The result is the map of the whole image, to rounding, where the score is a sum over positions, or the linear head
    of a mean over them, and windows, sizes and steps, are multiples of the network's stride: convolutional segmentation
    networks and classifiers with BatchNorm. For that it is measured how far a cell sees, and of a window only what lies
    that far inside it counts. Where a cell sees too far for that, and of networks that look at the whole window
    (attention, InstanceNorm, squeeze-and-excitation, several layers behind the pooling), it is the mean of what windows
    say. Where windows contradict each other by more than 2 % of the map's maximum a CamWarning says by how much, how
    far a cell sees, and what the windows show it.

    Cost: a forward and a backward a window, where weights are of the whole image one forward more (Grad-CAM++ and
    XGrad-CAM two). One forward a window
    more for targets=None, and up to that where a layer is to be found for a segmentation network. One forward and some
    backwards an image for how far a cell sees. With overlap 0.5 there are no more windows than MONAI's where that is up
    to a quarter of a window; up to eight times as many beyond that, with a CamWarning that says how many. A context of
    c makes a window of s voxels (1 + 2 c / s) times as long on each axis instead.
    When to take it: for volumes, slides and clips that do not fit the model or the memory; what does is explained in
    one piece by the base method.
    Paper: Cardoso et al. 2022 (MONAI), https://arxiv.org/abs/2211.02701.
    """

    batch_size = 1  # of windows, which is not what the base method has at a time

    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        base_method: Callable[..., Any] | None = None,
        roi_size: int | Sequence[int | None] | None = None,
        overlap: float | Sequence[float] = 0.5,
        mode: Literal["gaussian", "constant"] = "gaussian",
        sigma_scale: float | Sequence[float] = 0.125,
        padding_mode: PaddingMode = "constant",
        cval: float = 0.0,
        context: int | Sequence[int] | None = None,
        batch_size: int = 1,
        inferer: Any = None,
        **options: Unpack[CamOptions],
    ) -> None:
        """Nothing is run yet.

        model to base_method, options: see `MetaCAM.__init__`. roi_size to context: see `volumes.windows.Windows`.
        context=None measures how far a cell sees and keeps of each window what lies that far inside it; 0 is MONAI's.
        batch_size: windows at a time. inferer: a `monai.inferers.SlidingWindowInferer`, whose windows are taken instead
        of those.
        """
        relu, normalize = options.get("relu", True), options.get("normalize", "minmax")
        self._fuse = "max" if target_layers is None else options.get("fuse", "mean")
        raw: CamOptions = {**options, "normalize": None, "fuse": None}
        super().__init__(model, target_layers, reshape_transform, base_method, **raw)
        if not options.get("detach", True):
            raise ValueError("stitched maps are on the host and in no graph: leave out detach=False")
        _, self._scaled = scalings(relu, normalize)
        self._measures_reach, beside = context is None, context or 0
        self.windows = Windows(roi_size, overlap, mode, sigma_scale, padding_mode, cval, beside)
        self.batch_size = batch_size
        if inferer is not None:
            self.windows, self.batch_size = Windows.of(inferer, beside), inferer.sw_batch_size

    def explain(self, input_tensor: Inputs, targets: Targets, as_tensor: bool = False, **smoothing: bool) -> Any:
        """The stitched maps, float32 (N, *spatial), with K targets an image (N, K, *spatial), see `BaseCAM.__call__`.

        input_tensor: as for the base method, or an array (N, C, *spatial) in memory or in a file. as_tensor: a tensor
        on the host. targets: a class is the same for all windows; None is that of the highest mean score over the
        windows. Of a segmentation a class is its pixels where a window predicts it; a `SegmentationTarget` has the mask
        of the whole image, which is cut, and mask="predicted", a point or an instance mean what the windows' scores,
        stitched as MONAI does, predict for the whole image: these scores, (classes, *spatial), are on the host then,
        and it costs a forward a window more. Other callables get the output for a window.
        `outputs` is the mean of the windows' class scores (N, classes), None for other outputs.
        Raises ValueError where the model takes another axis than the second as its channels and axes= does not say so,
        and what `SegmentationTarget` raises.
        """
        inputs = WindowedInputs(input_tensor, self.spatial_from, self.windows)
        samples = range(len(inputs))
        if targets is None and not self.uses_targets:
            targets = 0  # any, which nobody looks at
        if targets is None or isinstance(targets, TargetRule):
            scores = torch.stack([self._mean_scores(inputs, sample) for sample in samples])
            targets = list(resolve_targets(None, scores)) if targets is None else chosen(targets, scores)
        columns = several_an_image(targets)
        lists = [one_a_sample(column, len(inputs)) for column in ([targets] if columns is None else columns)]
        stitched = [self._stitched(inputs, sample, [each[sample] for each in lists], smoothing) for sample in samples]
        empty = torch.zeros(0, len(lists), *inputs.image_size)
        maps = torch.stack([maps for maps, _ in stitched]) if stitched else empty
        class_scores = [scores for _, scores in stitched if scores.numel()]
        self.outputs = torch.stack(class_scores) if class_scores else None
        blank = (~maps.flatten(1).any(1)).nonzero()[:, 0].tolist()
        if blank:
            warn_of_blank(blank, len(maps), _BLANK)
        maps = maps if columns is not None else maps[:, 0]
        return maps if as_tensor else to_array(maps)

    def _stitched(
        self, inputs: WindowedInputs, sample: int, targets: Sequence[Any], smoothing: dict[str, bool]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The maps of K targets (K, *spatial), and the mean class scores (classes,), empty where there are none."""
        size = inputs.image_size
        windows = inputs.windows.on(size)
        targets = self._of_windows(inputs, sample, targets, windows[0])
        with maps_are_parts():
            if not self.target_layers:
                windows = self._asked_first(inputs, sample, targets, windows)
            shares_weights = SharedWeights.apply_to(self.base_cam)
            if shares_weights or self._measures_reach:  # the layer is found, and how it is read
                self._made(inputs, sample, targets, smoothing, self.base_cam, windows[:1])
            reach = self._reach(inputs, sample) if self._measures_reach else None
            if reach is not None:
                inputs = inputs.in_windows(_seeing_whole(inputs, reach))
                windows = inputs.windows.on(size)
            made = partial(self._made, inputs, sample, targets, smoothing)
            cam = self._sharing(made, inputs, windows, targets) if shares_weights else self.base_cam
            stitching = Stitching(inputs.windows, size)

            def add(start: int, stop: int) -> torch.Tensor:
                maps, scores = made(cam, windows[start:stop])
                stitching.add(maps, windows[start:stop])
                return scores

            scores = in_chunks(add, len(windows), self.batch_size, "windows").mean(0)
        stitched, apart = stitching.finish()
        if apart > _APART:
            _warn_of_seams(inputs, self._reach(inputs, sample) if reach is None else reach, apart)
        return self._fused(stitched, len(size)), scores

    def _reach(self, inputs: WindowedInputs, sample: int) -> Reach:
        """How far cells see in a window of those in the middle of the image."""
        cam = self.base_cam
        while isinstance(cam, MetaCAM):
            cam = cam.base_cam
        windows = inputs.windows.on(inputs.image_size)
        shown = inputs.of(sample, [windows[len(windows) // 2]])
        as_map = cam._found_layouts.as_map
        return reach_of(self.model, self.target_layers, shown, self.spatial_from, as_map, self.output_transform)

    def _sharing(
        self, made: Callable[..., Any], inputs: WindowedInputs, windows: Sequence[Slices], targets: Sequence[Any]
    ) -> Any:
        """The base method with the weights of the whole image."""
        size = inputs.image_size
        of_mean = math.prod(size) / math.prod(inputs.windows.sizes(size))
        are_sums = [isinstance(target, OF_REGION) for target in targets]
        shared = SharedWeights(self.base_cam, [1 if is_sum else of_mean for is_sum in are_sums])

        def gather(gathering: Callable[[torch.Tensor], Any], start: int, stop: int) -> torch.Tensor:
            some = windows[start:stop]
            own = torch.stack([inputs.windows.own(size, where)[None] for where in some])
            return cast(torch.Tensor, made(gathering(own), some)[1])

        for each in shared.passes():
            in_chunks(partial(gather, each), len(windows), self.batch_size, "weights of windows")
        return shared.using()

    def _made(
        self,
        inputs: WindowedInputs,
        sample: int,
        targets: Sequence[Any],
        smoothing: dict[str, bool],
        cam: Any,
        where: Sequence[Slices],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What a method says of windows: raw maps (W, K, *size), of several layers (W, K, layers, *size), on the host,
        and class scores (W, classes).
        """
        of_windows = tuple(tuple(cut(target, slices, inputs) for target in targets) for slices in where)
        before = cam.spatial_from
        maps = torch.as_tensor(cam(inputs.of(sample, where), of_windows, **smoothing))
        if cam.spatial_from != before:
            raise ValueError(_CHANNELS.format(inputs.shape, cam.spatial_from.channels))
        return maps, _class_scores(self.output_transform(cam.outputs), len(where))

    def _fused(self, maps: torch.Tensor, rank: int) -> torch.Tensor:
        """Raw maps (K, *spatial), of several layers (K, layers, *spatial), scaled, and their layers joined."""
        scaled = self._scaled(maps.flatten(0, -rank - 1)).reshape(maps.shape)
        is_one = maps.ndim == rank + 1 or self._fuse is None
        return scaled if is_one else self._scaled(fused(scaled, self._fuse))

    def _scores(self, inputs: WindowedInputs, sample: int, where: Sequence[Slices]) -> Any:
        """What targets read of the output for windows."""
        with undisturbed(self.model), torch.no_grad():
            return self.output_transform(call(self.model, on_device_of(self.model, inputs.of(sample, where))))

    def _mean_scores(self, inputs: WindowedInputs, sample: int) -> torch.Tensor:
        """The mean of the windows' class scores (classes,). Raises ValueError where there are none."""
        windows = inputs.windows.on(inputs.image_size)

        def scored(start: int, stop: int) -> torch.Tensor:
            scores = self._scores(inputs, sample, windows[start:stop])
            resolve_targets(None, scores)
            return _class_scores(scores, stop - start)

        return in_chunks(scored, len(windows), self.batch_size, "windows").mean(0)

    def _of_windows(
        self, inputs: WindowedInputs, sample: int, targets: Sequence[Any], window: Slices
    ) -> Sequence[int | Target]:
        """The targets, of which classes of a segmentation are their pixels where a window predicts them."""
        rank = len(inputs.image_size)
        if any(map(needs_whole_prediction, targets)):
            scores = self._whole_prediction(inputs, sample)
            targets = [of_whole_prediction(each, scores) if needs_whole_prediction(each) else each for each in targets]
        targets = [of_windows(target, rank) for target in targets]
        classes = [class_of(target) for target in targets]
        if all(number is None for number in classes):
            return targets
        scores = self._scores(inputs, sample, [window])
        is_dense = isinstance(scores, torch.Tensor) and scores.ndim == len(inputs.shape) > _SIGNAL_NDIM
        return [
            WherePredicted(number, rank) if is_dense and number is not None else target
            for number, target in zip(classes, targets, strict=True)
        ]

    def _whole_prediction(self, inputs: WindowedInputs, sample: int) -> torch.Tensor:
        """The scores (classes, *spatial) of the whole image, on the host, stitched of the windows' as MONAI does.

        Raises ValueError where the output is none of pixels.
        """
        size = inputs.image_size
        windows, shown = inputs.windows.on(size), inputs.windows.sizes(size)
        stitching = Stitching(inputs.windows, size)

        def add(start: int, stop: int) -> torch.Tensor:
            scores = self._scores(inputs, sample, windows[start:stop])
            scores = scores.plain if isinstance(scores, Segmented) else scores
            if not isinstance(scores, torch.Tensor) or scores.ndim - len(size) not in (1, 2):
                raise ValueError(_NO_SEGMENTATION.format(_shape_of(scores)))
            scores = scores.unsqueeze(1) if scores.ndim == len(size) + 1 else scores
            stitching.add(resize(scores.float().cpu(), shown), windows[start:stop])
            return torch.zeros(stop - start)

        in_chunks(add, len(windows), self.batch_size, "windows")
        return stitching.finish()[0]

    def _asked_first(
        self, inputs: WindowedInputs, sample: int, targets: Sequence[Any], windows: Sequence[Slices]
    ) -> list[Slices]:
        """The windows, first one that has what the targets ask for: the layer is found there."""
        for number, where in enumerate(windows):
            asked = [cut(target, where, inputs) for target in targets]
            if not any(isinstance(target, OF_REGION) for target in asked):
                return list(windows)
            scores = self._scores(inputs, sample, [where])
            if any(target_scores(scores, [target]).any() for target in asked):
                return [where, *windows[:number], *windows[number + 1 :]]
        return list(windows)


def _seeing_whole(inputs: WindowedInputs, reach: Reach) -> Windows:
    """Windows whose cells see what they see in the whole image; where that cannot be had, those that were asked."""
    size, asked = inputs.image_size, inputs.windows
    far, strides = reach
    windows = asked.seen_whole(size, far, strides) if any(far) else None
    if windows is not None and windows.count(size) > asked.count(size):
        issue(CamWarning(_MORE.format(far=max(far), count=windows.count(size), asked=asked.count(size))))
    return windows or asked


def _warn_of_seams(inputs: WindowedInputs, reach: Reach, apart: float) -> None:
    """Say that windows contradict each other, and whether a position sees farther than what they show."""
    size = inputs.image_size
    windows = inputs.windows
    axes = zip(*reach, windows.beside_seams(size), windows.sizes(size), strict=True)
    far, stride, near, shown = max(axes, key=lambda axis: axis[0] - axis[2])
    context = -(-far // stride) * stride
    issue(CamWarning(_CONTRADICT.format(apart=apart, far=far, near=near, size=shown, context=context)))


_APART = 0.02  # of a map's maximum; the error is up to four times that: what counts most is wrong itself
_CONTRADICT = (
    "windows contradict each other by up to {apart:.0%} of the map's maximum: it is not the map of the whole image. A "
    "cell sees {far} positions to each side, or more, and where two windows of {size} meet they show {near}: "
    "context={context} shows the model so many more around each window. With attention, normalisation over the window "
    "or several layers behind the pooling a map is the mean of what windows say"
)
_MORE = (
    "a cell sees {far} positions to each side, so that what lies nearer to a window's cut does not count: {count} "
    "windows instead of {asked}. Larger ones (roi_size=) take fewer; context=0 takes MONAI's, and the map is not "
    "that of the whole image"
)
_SIGNAL_NDIM = 3  # (N, classes, length) or (N, steps, classes): nobody knows, and the base method says so
_NO_SEGMENTATION = (
    "a region of what is predicted needs an output (N, classes, *spatial), for windows this one is {}: pass an "
    "output_transform"
)
_BLANK = (
    "so are those of all windows; of a segmentation, where no window predicts the class SegmentationTarget(category, "
    "mask) says where to look"
)
_CHANNELS = (
    "windows were cut from an image {0} whose channels are taken for its second axis, but the model takes axis {1} of "
    "them as channels: name the axes, as axes='NTCHW'"
)


def _shape_of(scores: Any) -> str:
    return str(tuple(scores.shape)) if isinstance(scores, torch.Tensor) else f"a {type(scores).__name__}"


def _class_scores(scores: Any, windows: int) -> torch.Tensor:
    """Class scores (W, classes) on the host; (W, 0) for other outputs."""
    has_classes = isinstance(scores, torch.Tensor) and scores.ndim == 2
    return scores.detach().float().cpu() if has_classes else torch.zeros(windows, 0)
