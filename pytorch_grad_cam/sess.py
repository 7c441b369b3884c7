"""SESS, Saliency Enhancing with Scaling and Sliding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from pytorch_grad_cam.base_cam import CamOptions
from pytorch_grad_cam.compat.old_spellings import old_constructor
from pytorch_grad_cam.engine.inputs import Inputs, call, image_of, on_device_of
from pytorch_grad_cam.engine.targets import Targets, check_own_scores
from pytorch_grad_cam.engine.trees import to_array
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.meta_cam import MetaCAM, attribute_of
from pytorch_grad_cam.perturbation.sliding_windows import sliding_window, window_starts
from pytorch_grad_cam.perturbation.window_maps import WindowMaps

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["SESS", "sliding_window", "window_starts"]


class SESS(MetaCAM):
    r"""Maps of windows on the enlarged image, weighted by their scores: $L = pool_w(s_w / \max s \cdot L_w)$.

    Finds small and repeated objects. Options: scales to batch_size are those of `window_maps`, see
    `perturbation.window_maps.WindowMaps`. The windows' maps are the base method's (Grad-CAM), smoothed if asked for.
    When to take it: for small and for repeated objects. Not where the cost of one call for each window is too much.
    Cost: one forward and, for each target and window, one call of the base method (pre_filter_ratio: one forward more).
    Paper: Tursun et al. 2022, https://arxiv.org/abs/2207.01769.
    """

    joins_maps = True
    is_differentiable = False

    scales = attribute_of("window_maps", "scales")
    num_scales = attribute_of("window_maps", "num_scales")
    scale_step_ratio = attribute_of("window_maps", "scale_step_ratio")
    window_size = attribute_of("window_maps", "window_size")
    step_size = attribute_of("window_maps", "step_size")
    pre_filter_ratio = attribute_of("window_maps", "pre_filter_ratio")
    theta = attribute_of("window_maps", "theta")
    pool = attribute_of("window_maps", "pool")
    smooth = attribute_of("window_maps", "smooth")
    use_softmax_scores = attribute_of("window_maps", "use_softmax_scores")
    batch_size = attribute_of("window_maps", "batch_size")

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        base_method: Callable[..., Any] | None = None,
        scales: Sequence[int] | None = None,
        num_scales: int = 12,
        scale_step_ratio: float = 2 / 7,
        window_size: int | None = None,
        step_size: int | None = None,
        pre_filter_ratio: float = 0.0,
        theta: float = 0.0,
        pool: Literal["mean", "max"] = "mean",
        smooth: bool = True,
        use_softmax_scores: bool = True,
        batch_size: int = 32,
        **options: Unpack[CamOptions],
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, base_method, **options)
        windows = (scales, num_scales, scale_step_ratio, window_size, step_size, pre_filter_ratio)
        self.window_maps = WindowMaps(self.base_cam, *windows, theta, pool, smooth, use_softmax_scores, batch_size)

    def explain(self, input_tensor: Inputs, targets: Targets, as_tensor: bool = False, **smoothing: bool) -> Any:
        """The joined maps of the windows, see `MetaCAM.forward`."""
        with undisturbed(self.model), torch.no_grad():
            inputs = on_device_of(self.model, input_tensor)
            outputs = call(self.model, inputs)
            scores = self.output_transform(outputs)
            check_own_scores(scores, len(image_of(inputs, self.spatial_from)))
            maps = self.window_maps(inputs, scores, targets, smoothing)
        self.outputs = outputs
        return maps.float() if as_tensor else to_array(maps.float())
