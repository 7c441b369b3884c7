"""What is asked about one model: a map for a target, without a layer, and which answers are right."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._pytree import tree_map

from benchmarks import zoo

Inputs = Any


class Target(NamedTuple):
    """given: what a user passes. score: the same number, read by hand from the model's output for one image."""

    given: Any
    score: Callable[[Any], torch.Tensor]


@dataclass
class Question:
    """A model, what it is called with, and what is right whatever the library says.

    targets: from the model's output to what is asked, by name. sensible: a regular expression of the layers at or
    behind the last stage of the encoder, up to the last one before the output. image: which of several inputs maps are
    for. reading: the image as (N, C, *spatial), the same numbers. cells: the size of one position of it, where maps at
    the scale of pixels are as right as those of positions. options: of the CAM. places: what is known of layers.
    """

    model: nn.Module
    inputs: Inputs
    targets: Callable[[Any], dict[str, Target]]
    sensible: str
    image: int | str | None = None
    reading: Callable[[torch.Tensor], torch.Tensor] = lambda image: image
    cells: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    places: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """The right sizes of a map."""
        size = tuple(self.reading(image_in(self.inputs, self.image)).shape[2:])
        return [size, tuple(self.cells * length for length in size)]

    def random_image(self, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(image_in(self.inputs, self.image).shape, generator=generator)

    def answer(self, image: torch.Tensor | None = None) -> Any:
        """The model's output, for another image if there is one."""
        inputs = self.inputs if image is None else with_image(self.inputs, self.image, image)
        if isinstance(inputs, dict):
            return self.model(**inputs)
        return self.model(*inputs) if isinstance(inputs, tuple) else self.model(inputs)


Case = tuple[str, Callable[[], Question]]


def image_in(inputs: Inputs, where: int | str | None) -> torch.Tensor:
    return inputs if where is None else inputs[where]


def with_image(inputs: Inputs, where: int | str | None, image: torch.Tensor) -> Inputs:
    if where is None:
        return image
    if isinstance(inputs, dict):
        return {**inputs, where: image}
    return type(inputs)([*inputs[:where], image, *inputs[where + 1 :]])


def as_trained(question: Question) -> Question:
    """The question with a model in evaluation mode, without the marks of an untrained one, see `zoo.as_if_trained`."""
    zoo.as_if_trained(question.model.eval(), lambda: _two_of(question).answer())
    return question


def _two_of(question: Question) -> Question:
    """With a second, random image."""
    if isinstance(question.inputs, list):
        inputs = [*question.inputs, torch.randn_like(question.inputs[0])]
    else:
        inputs = tree_map(_with_a_second, question.inputs)
    return replace(question, inputs=inputs)


def _with_a_second(tensor: torch.Tensor) -> torch.Tensor:
    return torch.cat([tensor, torch.randn_like(tensor) if tensor.is_floating_point() else tensor])


def of_class(number: int = 1) -> Callable[[Any], dict[str, Target]]:
    """A class of a classifier."""
    return lambda output: {"class": Target(number, lambda output: logits_in(output)[0, number])}


def logits_in(output: Any) -> torch.Tensor:
    """What a person takes for the scores: the tensor, the first of several, 'logits', torchvision's 'out'."""
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, tuple):
        return logits_in(output[0])
    return output["out"] if "out" in output else output["logits"]


def of_pixels(
    read: Callable[[Any], torch.Tensor] = logits_in,
) -> Callable[[Any], dict[str, Target]]:
    """For logits (N, classes, *spatial): the class that most pixels have, within its mask, and the mean of another."""

    def targets(output: Any) -> dict[str, Target]:
        best = read(output)[0].argmax(0)
        number = int(best.flatten().mode().values)
        return {
            "class": Target(number, lambda output: read(output)[0, number][best == number].mean()),
            "mean": Target(lambda logits: logits[2].mean(), lambda output: read(output)[0, 2].mean()),
        }

    return targets


def of_mean(read: Callable[[Any], torch.Tensor]) -> Callable[[Any], dict[str, Target]]:
    """For one value a pixel, as a depth or a mask: its mean."""
    return lambda output: {"mean": Target(lambda values: values.mean(), lambda output: read(output).mean())}
