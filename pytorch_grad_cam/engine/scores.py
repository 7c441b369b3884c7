"""Which tensor of a model's output is the score."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch.nn.functional import normalize

from pytorch_grad_cam.engine.probabilities import logits_behind, origins, probabilities_behind
from pytorch_grad_cam.engine.segmentation.forms import prompts_in, queries_in
from pytorch_grad_cam.engine.segmentation.segments import Segmented

_SCORE_KEYS = ("logits", "out", "logits_per_image", "pred_logits")
_PAIRS = (("image_features", "text_features"), ("image_embeds", "text_embeds"))
_NO_TEXTS = (
    "the output has features of the image alone, which are no scores: call the model with texts too, for their "
    "similarity, or read the features by an output_transform and pass targets that are callables"
)
_NO_SCORES = (
    "none of what the output has could be the scores: {}. Give the CAM an output_transform to the scores, or to a list "
    "with what each image has"
)
_ACTIVATIONS: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    lambda logits: logits.softmax(min(1, logits.ndim - 1)),
    torch.sigmoid,
    lambda logits: logits.log_softmax(min(1, logits.ndim - 1)),
)


class Undecided(NamedTuple):
    """An output of which nobody can tell what the scores are, and why. Targets refuse it; who needs none goes on."""

    outputs: Any
    why: str


def scores_among(outputs: Any) -> Any:
    """The scores in a model's output that is no tensor.

    Of a mapping (transformers' ModelOutput, torchvision's segmentation models), a dataclass or a named
    tuple (Inception, GoogLeNet) 'logits', 'out', 'logits_per_image' or 'pred_logits'. Else, of these, tuples and lists:

    - Of image features, text features and a scale (open_clip) the similarity, normalised features times the scale, with
      a bias where there is one. Of a pair of as many images as texts only where they are normalised already: two heads
      and a loss look alike. Features without texts are no scores.
    - The only floating tensor that has an axis: a loss and integers are none, nor are tensors in a list or dict in it.
    - Logits before their softmax, log-softmax or sigmoid (ultralytics' classifiers return both), in any order; the
      first of two that are each other's transpose (CLIP's similarities for images and for texts).
    - The first one where it alone has two axes, (N, classes): hidden states and features behind it are none.
    - Of a tuple that begins with an output in itself, and has no other tensors, that of the first.

    Of queries with masks (Mask2Former) and of masks for prompts (SAM) `Segmented`: a `SegmentationTarget` reads them,
    others the former's scores of pixels.
    A mapping without any of these is Undecided, too. Where several could be meant, as two heads or SAM's `iou_scores`
    and `pred_masks`, it is Undecided, and targets raise ValueError with the choices. Other lists, one entry a sample as
    detectors return them, stay as they are.

    Cost: which are logits is read from the graph; without one (ScoreCAM, AblationCAM, EigenCAM) it is seen in their
    values, as is whether features are normalised: one wait for the device, for outputs of these two kinds alone.
    """
    queries = queries_in(outputs)
    if queries is not None:
        return Segmented(torch.stack([each.class_scores for each in queries]), [*queries])
    for key in _SCORE_KEYS:
        if isinstance(outputs, Mapping) and key in outputs:
            return outputs[key]
        if isinstance(getattr(outputs, key, None), torch.Tensor):
            return getattr(outputs, key)
    features = _features(outputs)
    if features is not None:
        return features.similarity()
    entries = {name: entry for name, entry in _entries(outputs).items() if entry is not None}
    tensors = {name: entry for name, entry in entries.items() if _is_candidate(entry)}
    leading = next(iter(entries.values()), None)
    begins_nested = isinstance(outputs, tuple) and isinstance(leading, tuple | list | Mapping)
    if begins_nested:
        return Undecided(outputs, _choices(entries)) if tensors else scores_among(leading)
    chosen = _without_derived(tensors)
    if not chosen and isinstance(outputs, Mapping):
        return Undecided(outputs, _NO_SCORES.format(_said(entries) or "nothing"))
    first, *others = chosen.values() or [outputs]
    if not others or (first.ndim == 2 and all(other.ndim != 2 for other in others)):
        return first
    undecided, prompts = Undecided(outputs, _choices(chosen)), prompts_in(outputs)
    return undecided if prompts is None else Segmented(undecided, [*prompts])


def _entries(outputs: Any) -> dict[str, Any]:
    """What an output consists of, each by how it is read from `output`."""
    if isinstance(outputs, Mapping):
        return {f"[{key!r}]": entry for key, entry in outputs.items()}
    if isinstance(outputs, tuple | list):
        return {f"[{index}]": entry for index, entry in enumerate(outputs)}
    return (
        {f".{field.name}": getattr(outputs, field.name) for field in fields(outputs)} if is_dataclass(outputs) else {}
    )


def _is_candidate(entry: Any) -> bool:
    return isinstance(entry, torch.Tensor) and entry.is_floating_point() and entry.ndim > 0


def _said(entries: Mapping[str, Any]) -> str:
    return ", ".join(f"output{name} ({_described(entry)})" for name, entry in entries.items())


def _choices(entries: Mapping[str, Any]) -> str:
    return (
        f"several tensors of the output could be the scores: {_said(entries)}. Say which, for example by "
        f"output_transform=lambda output: output{next(iter(entries))}"
    )


def _described(entry: Any) -> str:
    return ", ".join(map(str, entry.shape)) if isinstance(entry, torch.Tensor) else f"a {type(entry).__name__}"


def _without_derived(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without those that are an activation of another one, or the transpose of an earlier one."""
    kept = dict(tensors)
    for (first, earlier), (second, later) in combinations(tensors.items(), 2):
        if _is_activation(later, earlier) or _is_transpose(later, earlier):
            kept.pop(second, None)
        elif _is_activation(earlier, later):
            kept.pop(first, None)
    return kept


def _is_activation(values: torch.Tensor, logits: torch.Tensor) -> bool:
    """Whether values are the softmax, the log-softmax or the sigmoid of the logits."""
    if values.shape != logits.shape:
        return False
    sources = {source for node in probabilities_behind(values.grad_fn) for source in logits_behind(node)}
    if not sources.isdisjoint(origins(logits.grad_fn)):
        return True
    of_logits = logits.detach().float()
    return any(_are_close(values, activation(of_logits)) for activation in _ACTIVATIONS)


def _is_transpose(later: torch.Tensor, earlier: torch.Tensor) -> bool:
    return later.ndim == earlier.ndim == 2 and later.shape == earlier.T.shape and _are_close(later, earlier.T)


def _are_close(values: torch.Tensor, expected: torch.Tensor) -> bool:
    precision = torch.finfo(values.dtype).eps ** 0.5
    return torch.allclose(values.detach().float(), expected.detach().float(), rtol=precision, atol=precision)


class _Features(NamedTuple):
    """What contrastive models return: features of images (N, D) and texts (M, D), their similarity's scale and bias."""

    images: torch.Tensor
    texts: torch.Tensor | None
    scale: torch.Tensor | None = None
    bias: torch.Tensor | None = None

    def similarity(self) -> Any:
        """How alike each image and each text are, (N, M); Undecided without texts."""
        if self.texts is None:
            return Undecided(tuple(self), _NO_TEXTS)
        similarity = normalize(self.images, dim=1) @ normalize(self.texts, dim=1).T
        scaled = similarity if self.scale is None else similarity * self.scale
        return scaled if self.bias is None else scaled + self.bias


def _features(outputs: Any) -> _Features | None:
    if isinstance(outputs, Mapping):
        names = next((pair for pair in _PAIRS if pair[0] in outputs), None)
        if names is None:
            return None
        return _Features(
            outputs[names[0]], outputs.get(names[1]), outputs.get("logit_scale"), outputs.get("logit_bias")
        )
    if not isinstance(outputs, tuple) or len(outputs) not in (3, 4):
        return None
    images, texts, *numbers = outputs
    if not _is_candidate(images) or images.ndim != 2 or not all(map(_is_number, numbers)):
        return None
    is_pair = _is_candidate(texts) and texts.ndim == 2 and texts.shape[1] == images.shape[1]
    if texts is None or (is_pair and (len(texts) != len(images) or _are_normalised(images, texts))):
        return _Features(*outputs)
    return None


def _is_number(entry: Any) -> bool:
    return isinstance(entry, torch.Tensor) and entry.numel() == 1


def _are_normalised(*features: torch.Tensor) -> bool:
    lengths = torch.cat([each.detach().float().norm(dim=1) for each in features])
    return bool(((lengths - 1).abs() < 1e-2).all())
