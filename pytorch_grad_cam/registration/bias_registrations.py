"""Where in the image the results of the operations look that add biases."""

import torch
from torch import nn

from pytorch_grad_cam.engine.bias_gradients import BiasWatch
from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, call, image_of, rows_of, with_image
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.registration.centre_rules import CentresWatch
from pytorch_grad_cam.registration.registration import Registration, registered


def bias_registrations(model: nn.Module, inputs: Inputs, spatial_from: SpatialFrom = None) -> list[Registration | None]:
    """By geometry, for each bias that `engine.bias_gradients` numbers: even tiles where that does not tell, None for
    what is no map. Cost: one forward.
    """
    results: list[torch.Tensor] = []
    inputs = rows_of(inputs, torch.tensor([0]), len(image_of(inputs, spatial_from)))
    with undisturbed(model), torch.no_grad():
        image = image_of(inputs, spatial_from).detach().clone()
        with CentresWatch(image) as watch, BiasWatch(lambda result, bias: results.append(result)):
            call(model, with_image(inputs, image, spatial_from))
        size = tuple(image.shape[2:])
        return [
            registered(watch, result, size) if result.ndim == image.ndim else None
            for result in results
            if watch.depends(result)
        ]
