"""Methods, layers and classes of one image beside each other: a figure, a page or both."""

import argparse
from pathlib import Path

from pytorch_grad_cam.cli.one_image import SCENE, image_at
from pytorch_grad_cam.cli.options import classifier_of, request_of, truth_of
from pytorch_grad_cam.cli.saying import say, say_classes, say_how
from pytorch_grad_cam.explanations.explainer import Explainer
from pytorch_grad_cam.explanations.truth import tell
from pytorch_grad_cam.zoo.classifiers import UnusableInput
from pytorch_grad_cam.zoo.preprocessing import inputs_of


def run(options: argparse.Namespace) -> int:
    """Write the figure, the page or both; return 0, for the image was explained."""
    if options.save or options.workers or options.batch_size:
        raise UnusableInput(
            "--save, --workers, --batch-size do not go with --comparison or several methods of one image"
        )
    picture = image_at(options.image_path)
    classifier = classifier_of(options)
    with Explainer(classifier, request_of(options, options.target_layers)) as explainer:
        inputs = inputs_of(classifier.preprocess(picture))
        (found,) = explainer(inputs, 1, [picture.size])
        explanation = explainer.explanation(found, inputs[0], picture.size, Path(options.image_path or SCENE).name)
    tell(explanation, truth_of(options))
    say_classes(explanation)
    say_how(explainer.cams, explanation.assumptions)
    if options.report:
        say(f"wrote {explanation.report(options.report)}")
    if options.comparison or not options.report:
        file = options.comparison or options.output_dir / "comparison.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        explanation.grid().savefig(file)
        say(f"wrote {file}")
    return 0
