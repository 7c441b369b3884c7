"""SESS, Saliency Enhancing with Scaling and Sliding (Tursun et al. 2022, arXiv:2207.01769)."""

import torch

from pytorch_grad_cam.compat.old_spellings import old_constructor
from pytorch_grad_cam.engine.inputs import call
from pytorch_grad_cam.engine.trees import to_array
from pytorch_grad_cam.engine.undisturbed import on_device_of, undisturbed
from pytorch_grad_cam.meta_cam import MetaCAM
from pytorch_grad_cam.perturbation.sliding_windows import sliding_window, window_starts
from pytorch_grad_cam.perturbation.window_maps import WindowMaps

__all__ = ["SESS", "sliding_window", "window_starts"]


class SESS(MetaCAM):
    r"""Maps of windows on the enlarged image, weighted by their scores: $L = pool_w(s_w / \max s \cdot L_w)$.

    Finds small and repeated objects. Options: scales to batch_size, see `window_maps.WindowMaps`, which are attributes
    too. The windows' maps are the base method's (Grad-CAM), smoothed if asked for.
    Cost: one forward and, for each target and window, one call of the base method (pre_filter_ratio: one forward more).
    """

    own_attributes = ("base_cam", "window_maps")

    @old_constructor
    def __init__(
        self,
        model,
        target_layers=None,
        reshape_transform=None,
        base_method=None,
        scales=None,
        num_scales=12,
        scale_step_ratio=2 / 7,
        window_size=None,
        step_size=None,
        pre_filter_ratio=0.0,
        theta=0.0,
        pool="mean",
        smooth=True,
        use_softmax_scores=True,
        batch_size=32,
        **options,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, base_method, **options)
        windows = (scales, num_scales, scale_step_ratio, window_size, step_size, pre_filter_ratio)
        self.window_maps = WindowMaps(self.base_cam, *windows, theta, pool, smooth, use_softmax_scores, batch_size)

    def explain(self, input_tensor, targets, as_tensor=False, **smoothing):
        with undisturbed(self.model), torch.no_grad():
            inputs = on_device_of(self.model, input_tensor)
            outputs = call(self.model, inputs)
            maps = self.window_maps(inputs, self.output_transform(outputs), targets, smoothing)
        self.outputs = outputs
        return maps.float() if as_tensor else to_array(maps.float())

    def _owners(self):
        return [self.__dict__["window_maps"], self.base_cam] if "window_maps" in self.__dict__ else super()._owners()
