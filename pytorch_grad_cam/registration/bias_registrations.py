"""Where in the image the results of the operations look that add biases."""

import torch
from torch import nn

from pytorch_grad_cam.engine.bias_gradients import Added, BiasWatch, channels_first
from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, call, image_of, rows_of, with_image
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.registration.centre_rules import CentresWatch
from pytorch_grad_cam.registration.mirror_test import displacement, strength, strengths_of_views
from pytorch_grad_cam.registration.registration import Registration, registered, with_displacement


def bias_registrations(model: nn.Module, inputs: Inputs, spatial_from: SpatialFrom = None) -> list[Registration | None]:
    """For each bias that `engine.bias_gradients` numbers, as `registration_of` finds it; None for what is no map.

    Cost: one forward, and those of `mirror_test.strengths_of_views`, for all biases together.
    """
    results: list[torch.Tensor] = []

    def keep(result: torch.Tensor, added: Added) -> None:
        results.append(channels_first(result, added))

    one = rows_of(inputs, torch.tensor([0]), len(image_of(inputs, spatial_from)))
    with undisturbed(model), torch.no_grad():
        image = image_of(one, spatial_from).detach().clone()
        size = tuple(image.shape[2:])
        with CentresWatch(image) as watch, BiasWatch(model, keep):
            call(model, with_image(one, image, spatial_from))
        of_image = [place for place, result in enumerate(results) if watch.depends(result)]
        known = [registered(watch, results[p], size) if results[p].ndim == image.ndim else None for p in of_image]

        def strengths(inputs: Inputs) -> list[torch.Tensor | None]:
            results.clear()
            with BiasWatch(model, keep):
                call(model, inputs)
            kept = zip(of_image, known, strict=True)
            return [None if place is None else strength(results[index]) for index, place in kept]

        views = strengths_of_views(one, spatial_from, strengths)
    return [
        None if place is None or each is None else with_displacement(place, displacement(each))
        for place, each in zip(known, views, strict=True)
    ]
