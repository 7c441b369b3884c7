"""torchvision's detectors with the predictions that they drop."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FunctionType, SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from pytorch_grad_cam.engine.detections.predictions import Predictions, Suppression, of_probabilities
from pytorch_grad_cam.engine.detections.region_heads import with_region_heads
from pytorch_grad_cam.engine.threads import SharedChange
from pytorch_grad_cam.engine.watch import Arguments, Watch

Size = tuple[int, int]

_POSTPROCESS = "postprocess_detections"
_OPEN = {"score_thresh": 0.0, "nms_thresh": 1.0, "detections_per_img": sys.maxsize}
_lock = threading.Lock()
# What the last run of each module gave in this thread: of each image the reported scores and all that was predicted.
_thread = threading.local()
_openings: weakref.WeakKeyDictionary[nn.Module, _Opening] = weakref.WeakKeyDictionary()


def suppressing_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that choose detections by thresholds, as torchvision's: of most models none."""
    return [module for module in model.modules() if all(hasattr(module, name) for name in (_POSTPROCESS, *_OPEN))]


@contextmanager
def raw_predictions_kept(modules: Sequence[nn.Module], given: Size | None) -> Iterator[None]:
    """Within, in this thread: `raw_predictions_of` knows what these modules predicted in their last run.

    given: the size of the images, if the modules work on another one.

    What the model returns is as ever: its thresholds stay as they are. Several threads may be within at once; what was
    changed of the modules is put back when the last one leaves, whatever happened.
    Cost: their postprocessing once more in each forward, without a threshold.
    """
    outer = getattr(_thread, "kept", None)
    _thread.kept = {}
    with ExitStack() as stack:
        stack.callback(setattr, _thread, "kept", outer)
        for module in modules:
            with _lock:
                opening = _openings.get(module) or _openings.setdefault(module, _Opening(module))
            stack.enter_context(opening.change)
            stack.enter_context(_Keeping(module, opening, given))
        yield


def raw_predictions_of(outputs: Any) -> list[Predictions]:
    """All that was predicted for the images whose reported scores, the very tensors, are in a model's output: also
    where a module around the detector puts them in another form.
    """
    kept = getattr(_thread, "kept", None)
    if not kept:
        return []
    known = {id(scores): raw for of_module in kept.values() for scores, raw in of_module}
    found = dict.fromkeys(id(leaf) for leaf in tree_leaves(outputs) if id(leaf) in known)
    return [known[scores] for scores in found]


class _Opening:
    """A module's `postprocess_detections` that also computes what it would drop."""

    def __init__(self, module: nn.Module) -> None:
        self._module = weakref.ref(module)
        self._of_thread = threading.local()
        self._before: Any = None
        self.change = SharedChange(self._make, self._undo)

    def take(self) -> list[Predictions]:
        """What the last run in this thread has computed."""
        raw: list[Predictions] = self._of_thread.raw
        del self._of_thread.raw
        return raw

    def _make(self) -> None:
        module = self._known()
        self._before = vars(module).get(_POSTPROCESS)
        vars(module)[_POSTPROCESS] = self._postprocess(module, getattr(module, _POSTPROCESS))

    def _undo(self) -> None:
        module = self._known()
        del vars(module)[_POSTPROCESS]
        if self._before is not None:
            vars(module)[_POSTPROCESS] = self._before

    def _known(self) -> nn.Module:
        module = self._module()
        assert module is not None
        return module

    def _postprocess(self, module: nn.Module, original: Callable[..., Any]) -> Callable[..., Any]:
        def postprocess(*args: Any) -> Any:
            if self.change.is_within():
                self._of_thread.raw = _raw_of(module, args)
            return original(*args)

        return postprocess


def _raw_of(module: Any, args: tuple[Any, ...]) -> list[Predictions]:
    """What a copy of the module without thresholds gives: a dict for each image, or lists of boxes, scores, labels."""
    opened = object.__new__(type(module))
    opened.__dict__.update({**vars(module), **_OPEN})
    found = _unsuppressed(getattr(type(module), _POSTPROCESS))(opened, *args)
    of_images = (
        [[image[key] for key in ("boxes", "scores", "labels")] for image in found]
        if isinstance(found, list)
        else zip(*found, strict=True)
    )
    kept = Suppression(module.score_thresh, module.nms_thresh, module.detections_per_img)
    *_, sizes = args
    return [
        of_probabilities(boxes, scores, labels, tuple(size), kept)
        for (boxes, scores, labels), size in zip(of_images, sizes, strict=True)
    ]


def _unsuppressed(postprocess: Any) -> Any:
    """The same where nothing is compared with each other, of torchvision's functions: to see that of thousands of
    predictions none covers another one more than wholly takes as long as all else. Other functions as they are.
    """
    from torchvision.ops import boxes

    if getattr(postprocess, "__globals__", {}).get("box_ops") is not boxes:
        return postprocess
    ordering = SimpleNamespace(**{**vars(boxes), "batched_nms": _in_order})
    return FunctionType(postprocess.__code__, {**postprocess.__globals__, "box_ops": ordering})


def _in_order(boxes: torch.Tensor, scores: torch.Tensor, *_: Any) -> torch.Tensor:
    """Which boxes are left where no overlap is too much, as `batched_nms` gives them: the highest score first."""
    return scores.argsort(descending=True, stable=True)


class _Keeping(Watch):
    def __init__(self, module: nn.Module, opening: _Opening, given: Size | None) -> None:
        super().__init__([module], before=lambda: _thread.kept.pop(module, None))  # and its graph
        self._opening, self._given = opening, given

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> None:
        detections = output[0] if isinstance(output, tuple) else output
        _thread.kept[module] = [
            (image["scores"], with_region_heads(raw, module, sample, inputs[0]).at_size(self._given or raw.size))
            for sample, (image, raw) in enumerate(zip(detections, self._opening.take(), strict=True))
        ]
