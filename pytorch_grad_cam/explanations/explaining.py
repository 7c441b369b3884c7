"""`explain`: from a model and an image of any form to maps, in one call."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

import numpy as np
import torch
from torch import nn

import pytorch_grad_cam
from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.chunks import images_at_a_time
from pytorch_grad_cam.engine.inputs import image_of
from pytorch_grad_cam.engine.wrappers import unwrapped
from pytorch_grad_cam.explanations.answers import written_answers
from pytorch_grad_cam.explanations.arguments import check_keywords
from pytorch_grad_cam.explanations.explainer import Explainer, Request
from pytorch_grad_cam.explanations.explanation import Explanation
from pytorch_grad_cam.explanations.methods import DefaultMethods, methods_of, requested, several_methods
from pytorch_grad_cam.explanations.results import KINDS
from pytorch_grad_cam.explanations.run import Run
from pytorch_grad_cam.explanations.sources import Several, given_batch, is_given, several_of
from pytorch_grad_cam.explanations.stream import explanations
from pytorch_grad_cam.explanations.truth import tell
from pytorch_grad_cam.explanations.words import Asked, answer_explained
from pytorch_grad_cam.folder.configuration import claim
from pytorch_grad_cam.folder.image_list import ListedImage, images_in
from pytorch_grad_cam.folder.processes import default_workers, process_group
from pytorch_grad_cam.registration.registration import Alignment
from pytorch_grad_cam.tam import TAM
from pytorch_grad_cam.zoo.class_scores import Probabilities
from pytorch_grad_cam.zoo.classifiers import Classifier, classifier_of
from pytorch_grad_cam.zoo.pictures import as_picture
from pytorch_grad_cam.zoo.preprocessing import inputs_of
from pytorch_grad_cam.zoo.text_classifier import classifier_of_texts, is_contrastive
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from pytorch_grad_cam.explanations.typed import File, Layers, Method, Model, OneImage, Options, Target, Truth

Found = TypeVar("Found", Explanation, "Explanation | UnusableInput")
_FOR_FILES = "output_dir is for files: pass a folder, a glob or a list of paths (.txt) as the image"


# Whether a path, an array or a tensor is one image or several is known when it is looked at.
@overload
def explain(  # type: ignore[overload-overlap]
    model: Model,
    image: OneImage,
    methods: Method | Sequence[Method] | None = ...,
    targets: Target | Sequence[Target] | Mapping[str, Target] | None = ...,
    layers: Layers | None = ...,
    **options: Unpack[Options],
) -> Explanation: ...
@overload
def explain(
    model: Model,
    image: File,
    methods: Method | Sequence[Method] | None = ...,
    targets: Target | Sequence[Target] | Mapping[str, Target] | None = ...,
    layers: Layers | None = ...,
    *,
    output_dir: File,
    **options: Unpack[Options],
) -> Iterator[Explanation]: ...
@overload
def explain(  # type: ignore[overload-overlap]
    model: Model,
    image: File | np.ndarray | torch.Tensor,
    methods: Method | Sequence[Method] | None = ...,
    targets: Target | Sequence[Target] | Mapping[str, Target] | None = ...,
    layers: Layers | None = ...,
    *,
    output_dir: None = ...,
    **options: Unpack[Options],
) -> Explanation | Any: ...
@overload
def explain(
    model: Model,
    image: Iterable[Any],
    methods: Method | Sequence[Method] | None = ...,
    targets: Target | Sequence[Target] | Mapping[str, Target] | None = ...,
    layers: Layers | None = ...,
    **options: Unpack[Options],
) -> Iterator[Explanation]: ...
def explain(
    model: Model,
    image: OneImage | File | np.ndarray | torch.Tensor | Iterable[Any],
    methods: Method | Sequence[Method] | None = None,
    targets: Target | Sequence[Target] | Mapping[str, Target] | None = None,
    layers: Layers | None = None,
    *,
    top: int = 1,
    preprocess: Callable[..., object] | None = None,
    processor: Callable[..., object] | None = None,
    categories: Sequence[str] | None = None,
    probabilities: Probabilities = None,
    weights: str = "default",
    align: Alignment = "receptive_field",
    aug_smooth: bool = False,
    eigen_smooth: bool = False,
    signed: bool = False,
    truth: Truth | None = None,
    prompt: str | None = None,
    max_new_tokens: int = 64,
    batch_size: int | None = None,
    workers: int | None = None,
    output_dir: File | None = None,
    save: Sequence[str] = ("overlay",),
    **options: Any,
) -> Explanation | Iterator[Explanation]:
    """An explanation: maps of what the model looks at in the image. Of several images an iterator of explanations.

    model: a classifier, a `zoo.classifiers.Classifier`, a transformers pipeline, the name of a model with its
    `weights`, or the folder that transformers saved one to, see `zoo.classifiers.load_classifier`.
    image: a picture, what the model takes, or several images.
    A picture is anything that `zoo.pictures.as_picture` takes: a file, bytes, a Pillow image, an array or a tensor of
    integers. What the model takes is given to it as it is: a tensor of floats (C, *spatial) or (N, C, *spatial), or, a
    batch of one, a mapping of keyword arguments or a tuple of arguments. Several images are a folder, a glob, a file
    with a list of paths (.txt), a list, an array or tensor with a batch axis, or any iterable, such as a DataLoader,
    of pictures or of batches (with their labels, which are left out).
    methods: classes or names ('gradcam', 'layercam', 'all'), one or several; None is GradCAM, of a detector LayerCAM,
    with a prompt TAM.
    targets: classes by number or name, or callables as in a CAM, one or several; a mapping gives them names; None takes
    the `top` highest classes.
    Of a model that compares images and texts (CLIP, SigLIP, OpenCLIP) they are a list of texts, which the `processor`
    (of OpenCLIP the tokenizer) reads, or their embeddings (texts, D).
    Of a detector: a class is its best raw prediction, `BoxTarget` any other, by a box in pixels of the picture, None
    the `top` detections; each panel has the box, its name and score (of methods take LayerCAM or HiResCAM, for others
    mark all objects that look alike).
    Of a segmenter: a class is where it is predicted, a pair in a list, [(y, x)], in pixels of the picture, the object
    there, a `SegmentationTarget` any other region (its mask and point are in pixels of what the model is shown), None
    the `top` classes of most pixels but background; each panel has the region's outline.
    One output alone is two classes: class 1 is what it speaks for, class 0 its negative.
    layers: None finds one in the model. A list gives a map for each entry; an entry that is a list itself gives the
    mean over its layers.
    preprocess: from a Pillow image to the input, see `zoo.preprocessing.inputs_of`, which is then cast to the model's
    precision, or a transformers processor. processor: another name for the latter. None is the model's own; where it
    does not say, torchvision's for ImageNet, with a CamWarning.
    categories: the classes' names; None: see `zoo.class_names.names_of`.
    probabilities: 'softmax', 'sigmoid', 'none' or a callable; None: see `zoo.class_scores.class_scores_of`.
    align: see `BaseCAM`, but registered maps are the default here: even tiles where nothing else is certain, as at most
    last layers. aug_smooth, eigen_smooth: see `BaseCAM.__call__`.
    signed: of two targets, a and b, the map of a minus the map of b, in [-1, 1]: what speaks for a alone is positive,
    what speaks for b alone negative. Each is scaled by itself before.
    truth: the right class, by number or name, which the result and its page tell beside the model's; of several images
    one for each in their order, or a mapping from file names, of images that are written also from paths below the
    folder. None takes a loader's labels that are numbers of classes.
    prompt: what a vision-language model is asked about the picture, which its `processor` reads. It answers with at
    most `max_new_tokens`, and each word has a panel, see `words.answer_explained`; `sentence` has them as they stand.
    With an `output_dir` each word has its files, and the manifest what was said.
    batch_size: images at a time, and what a method has at a time besides; None: see `engine.chunks.images_at_a_time`.
    workers: the processes that decode files, and the threads that draw; None is one for each core.
    output_dir: of a folder, a glob or a list of paths, write the files that `save` names ('overlay', 'map', 'mask',
    'boxes') and a manifest, as the command line does; started again it makes what is missing, and gives that alone.
    options: for the methods' constructors.

    Several images are explained in batches as the iterator is asked, two batches ahead, so that a thousand need no more
    memory than ten. One that cannot be read is left out with a CamWarning, of a list that was given an UnusableInput.
    A keyword that no method takes is a TypeError that says what is meant.

    What nobody said is in the result's `assumptions`. A CamWarning is issued, and kept in the result. The model is left
    as it was. Raises ValueError for an image that cannot be read, a class name or a method that does not exist, empty
    lists, a `top` below 1, and where the methods raise it; IndexError for the number of a class that does not exist.
    Cost: one forward, and one call of each method at each layer, with all targets at once.

    >>> from pytorch_grad_cam.demo import example_scene, load_digits_net
    >>> explanation = explain(load_digits_net(), example_scene(), targets=[5, 7])
    >>> [str(panel) for panel in explanation.panels]
    ['5 100.0%, GradCAM at layer4', '7 100.0%, GradCAM at layer4']
    >>> explanation.maps.shape
    (2, 64, 64)
    """
    for name, given in (("methods", methods), ("targets", targets), ("layers", layers)):
        if isinstance(given, list | tuple | Mapping) and not given:
            raise ValueError(f"{name} is empty: pass one or more, or leave it out")
    if top < 1:
        raise ValueError(f"top is {top}, expected the number of highest classes, 1 or more")
    if prompt is not None:
        if targets is not None or layers is not None:
            raise ValueError("with a prompt the targets are the words of the answer: leave targets and layers out")
        of_words = [TAM if method == "tam" else method for method in several_methods(methods or TAM)]
        asked = Asked(prompt, processor or preprocess, methods_of(of_words), max_new_tokens, options)
        check_keywords(options, asked.methods, inspect.signature(explain).parameters)
        return _answers(model, image, asked, output_dir, save)
    contrastive, texts = cast(Any, model), cast(Any, targets)
    if is_contrastive(contrastive) and _are_texts(texts):
        classifier = classifier_of_texts(contrastive, texts, processor, preprocess)
        targets = list(range(len(texts)))
    elif preprocess is not None and processor is not None:
        raise ValueError("preprocess and processor are two names for one thing: pass one of them")
    else:
        reader = processor if preprocess is None else preprocess
        classifier = classifier_of(model, reader, categories, weights, probabilities)
    chosen = requested(methods)
    could_be = chosen.all if isinstance(chosen, DefaultMethods) else chosen
    check_keywords(options, could_be, inspect.signature(explain).parameters)
    smoothing = {"aug_smooth": aug_smooth, "eigen_smooth": eigen_smooth}
    options["align"] = align
    request = Request(chosen, _listed(targets), layers, top, smoothing, options, batch_size, signed)
    if signed and (top if request.targets is None else len(request.targets)) != 2:
        raise ValueError("signed is the map of one target minus that of another: pass two targets, or top=2")
    if options.get("normalize", "minmax") is None:
        raise ValueError(
            "explain draws maps in [0, 1] or [-1, 1]: pass normalize='max', which with relu=False keeps their sign, or "
            "call the method's class for maps as they are"
        )
    if signed and output_dir is not None and {"mask", "boxes"} & {*save}:
        raise ValueError("masks and boxes are of maps in [0, 1]: a signed run saves 'overlay' and 'map'")
    if output_dir is not None:
        if isinstance(truth, Sequence) and not isinstance(truth, str):
            raise ValueError("truth of images that are written goes by their names: pass a mapping from file names")
        return _written(classifier, request, image, Path(output_dir), save, batch_size, workers, truth)
    several = several_of(image, classifier.model)
    if several is None:
        return next(_told([_one(classifier, request, image)], truth))
    return _of_several(_told(_several(classifier, request, several, batch_size, workers), truth), several.are_listed)


def _one(classifier: Classifier, request: Request, image: Any) -> Explanation:
    with Explainer(classifier, request, is_given(image)) as explainer:
        if explainer.are_given:
            inputs, size = given_batch(image, classifier.model), None
        else:
            picture = as_picture(image)
            inputs, size = inputs_of(classifier.preprocess(picture)), picture.size
        (found,) = explainer(inputs, 1, [size])
        return explainer.explanation(
            found, image_of(inputs, request.options.get("spatial_from"))[0], size, _title_of(image)
        )


def _several(
    classifier: Classifier, request: Request, several: Several, batch_size: int | None, workers: int | None
) -> Iterator[Explanation | UnusableInput]:
    with Explainer(classifier, request, several.are_given) as explainer:
        yield from explanations(explainer, several, batch_size, workers)


def _told(found: Iterable[Found], truth: Truth | None) -> Iterator[Found]:
    """The same with the right class of each, where it is said."""
    for position, explanation in enumerate(found):
        if isinstance(explanation, Explanation):
            tell(explanation, truth, position)
        yield explanation


def _of_several(found: Iterable[Explanation | UnusableInput], are_listed: bool) -> Iterator[Explanation]:
    for explanation in found:
        if isinstance(explanation, Explanation):
            yield explanation
        elif are_listed:
            issue(CamWarning(f"not explained: {explanation}"))
        else:
            raise explanation


def _written(
    classifier: Classifier,
    request: Request,
    image: Any,
    output_dir: Path,
    kinds: Sequence[str],
    batch_size: int | None,
    workers: int | None,
    truth: Truth | None,
) -> Iterator[Explanation]:
    images = _listed_images(image, output_dir, kinds)
    return _continued(classifier, request, images, output_dir, kinds, batch_size, workers, truth)


def _listed_images(image: Any, output_dir: Path, kinds: Sequence[str]) -> list[ListedImage]:
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not isinstance(image, str | os.PathLike):
        what = f"save is {list(kinds)}, expected some of {', '.join(KINDS)}" if unknown else _FOR_FILES
        raise UnusableInput(what)
    return images_in(os.fspath(image), output_dir)


def _continued(
    classifier: Classifier,
    request: Request,
    images: Sequence[ListedImage],
    output_dir: Path,
    kinds: Sequence[str],
    batch_size: int | None,
    workers: int | None,
    truth: Truth | None,
) -> Iterator[Explanation]:
    with Explainer(classifier, request) as explainer, process_group() as process:
        size = batch_size or images_at_a_time(explainer.device)
        claim(output_dir, {**_configuration(classifier, request), "save": list(kinds), "batch_size": size}, process)
        how = kinds, size, workers or default_workers(), process
        yield from Run(explainer, images, output_dir, *how, truth=truth).explanations()


def _configuration(classifier: Classifier, request: Request) -> dict[str, Any]:
    """What the maps depend on, as far as it has a name."""
    return {
        "version": pytorch_grad_cam.__version__,
        "model": type(classifier.model).__name__,
        "preprocessing": classifier.preprocessing.origin,
        "methods": "default" if isinstance(request.methods, DefaultMethods) else [*map(_name_of, request.methods)],
        "targets": None if request.targets is None else [_name_of(target) for target in request.targets],
        "layers": str(request.layers),
        "top": request.top,
        "signed": request.signed,
        "options": {name: _name_of(value) for name, value in {**request.smoothing, **request.options}.items()},
    }


def _name_of(value: Any) -> str:
    return str(getattr(value, "__name__", value))


def _answers(
    model: Any, image: Any, asked: Asked, output_dir: Any, kinds: Sequence[str]
) -> Explanation | Iterator[Explanation]:
    if asked.processor is None:
        raise ValueError("a prompt needs the model's processor: pass processor=")
    if is_given(image):
        raise ValueError("with a prompt pass a picture, or several; TAM(model) explains what a processor gave")
    model = unwrapped(getattr(model, "model", model) if not isinstance(model, nn.Module) else model)
    if output_dir is not None:
        folder = Path(output_dir)
        return written_answers(model, _listed_images(image, folder, kinds), folder, kinds, asked)
    several = several_of(image, model)
    if several is None:
        return answer_explained(model, image, asked, _title_of(image))
    answers = (_answer(model, each, asked, several.title(number)) for number, each in enumerate(several.items))
    return _of_several(answers, several.are_listed)


def _answer(model: nn.Module, image: Any, asked: Asked, title: str) -> Explanation | UnusableInput:
    try:
        return answer_explained(model, image, asked, title)
    except UnusableInput as error:
        return error


def _title_of(image: Any) -> str:
    return Path(image).name if isinstance(image, str | os.PathLike) else ""


def _are_texts(targets: Any) -> bool:
    is_list = isinstance(targets, list | tuple) and all(isinstance(target, str) for target in targets)
    return is_list or (isinstance(targets, torch.Tensor) and targets.is_floating_point())


def _listed(targets: Any) -> list[Any] | Mapping[str, Any] | None:
    if targets is None or isinstance(targets, Mapping):
        return targets
    return list(targets) if isinstance(targets, list | tuple) else [targets]
