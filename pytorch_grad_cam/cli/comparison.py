"""Methods, layers and classes beside each other: a figure and a page of one image, or a page of several."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytorch_grad_cam.cli.one_image import TOP_CLASSES, image_at
from pytorch_grad_cam.cli.options import asks_for_several, classifier_of, smoothing_of
from pytorch_grad_cam.cli.saying import say
from pytorch_grad_cam.folder.image_list import images_in
from pytorch_grad_cam.zoo.classifiers import Classifier, UnusableInput

if TYPE_CHECKING:
    from pytorch_grad_cam.explanations.explanation import Explanation


def run(options: argparse.Namespace) -> None:
    """Write the figure, the page or both."""
    from pytorch_grad_cam.explanations.report import write_report

    several = asks_for_several(options)
    if several and (options.comparison or not options.report):
        raise UnusableInput("several images have no figure, but a page, also of several methods: pass --report FILE")
    if options.save or options.workers or options.batch_size:
        raise UnusableInput("--save, --workers, --batch-size do not go with --report, --comparison or several methods")
    if options.align == "receptive_field":
        say("registered, --align cell undoes it: each cell is drawn where it looks")
    classifier = classifier_of(options)
    if several:
        paths = [image.path for image in images_in(options.image_path, options.output_dir)]
        say(f"wrote {write_report(_explanations(options, classifier, paths), options.report)}")
        return
    (explanation,) = _explanations(options, classifier, [options.image_path])
    for index, name, probability in explanation.top(TOP_CLASSES):
        say(f"{probability:7.2%}  {name} ({index})")
    if options.report:
        say(f"wrote {explanation.report(options.report)}")
    if options.comparison or not options.report:
        file = options.comparison or options.output_dir / "comparison.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        explanation.grid().savefig(file)
        say(f"wrote {file}")


def _explanations(
    options: argparse.Namespace, classifier: Classifier, paths: Sequence[str | None]
) -> Iterator["Explanation"]:
    """The explanations of the images that can be read; of the others it is said why not.

    Raises UnusableInput for an image that cannot be read where it is the only one.
    """
    from pytorch_grad_cam.explanations.explaining import explain

    for path in paths:
        try:
            image = image_at(path)
        except UnusableInput as error:
            if len(paths) == 1:
                raise
            say(f"not read: {error}")
            continue
        explanation = explain(
            classifier,
            image,
            options.methods,
            options.target_category or None,
            options.target_layers,
            align=options.align,
            **smoothing_of(options),
        )
        explanation.title = Path(path or "scene.png").name
        yield explanation
