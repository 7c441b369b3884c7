"""Values of images that no preprocessing gives."""

import torch

from pytorch_grad_cam.engine.cam_warning import CamWarning, issue

# A picture in [0, 1] that is normalised stays below 6, one whose mean alone was taken off has negative values.
_HIGHEST = 32.0
_CHANNELS = (1, 3)


def warn_of_raw_values(image: torch.Tensor) -> None:
    """A CamWarning for pictures (N, C, H, W), grey or in colours, that were not scaled: 0 to 255.

    Cost: one wait for the device.
    """
    if image.ndim != 4 or image.shape[1] not in _CHANNELS or image.is_meta or not image.numel():
        return
    lowest, highest = torch.stack(image.detach().aminmax()).tolist()
    if lowest >= 0 and highest > _HIGHEST:
        why = f"the image has values from {lowest:.4g} to {highest:.4g}, as before any preprocessing"
        issue(CamWarning(f"{why}: unless the model scales them itself, divide by 255 and normalise as in its training"))
