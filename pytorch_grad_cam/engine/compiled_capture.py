"""A call's capture with a compiled forward."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.capture import Capture, Captured, Capturing
from pytorch_grad_cam.engine.compiled_difference import difference
from pytorch_grad_cam.engine.compiled_forward import CompiledForward
from pytorch_grad_cam.engine.inputs import Inputs, as_tree
from pytorch_grad_cam.engine.probabilities import MAY_HAND_ON
from pytorch_grad_cam.engine.rectifiers import RectifiedCapture, known_rectifiers
from pytorch_grad_cam.engine.torch_quirks.compiled_functions import as_compiled
from pytorch_grad_cam.engine.trees import copied
from pytorch_grad_cam.engine.wrappers import compile_options

if TYPE_CHECKING:
    from typing_extensions import Self

_MOST_FORWARDS = 8  # as often as PyTorch compiles a function anew
_SCORES_NDIM = 2
_COMPILES = (
    "the model was given in torch.compile, so this CAM compiles it, too, up to the layer and behind it, which takes "
    "from seconds to minutes; later calls with inputs of this form run compiled. To have them run as the model was "
    "written, pass the model itself, `model._orig_mod`"
)


def compile_cam(cam: Any, **options: Any) -> None:
    """Let the calls run compiled: the model up to the layer, behind it, and the backward of that.

    options: those of `torch.compile`, as `mode="max-autotune"`, `backend=` and `dynamic=`. The first call for each form
    of the inputs compiles, which takes from seconds to minutes; it runs the model as it was written, too, compares
    outputs, activations and gradients, and hands out the map of that. Later calls run compiled, and their maps are the
    same up to rounding. What was compiled is this CAM's own.

    Models that are no single graph, whose outputs are no scores (N, classes), whose scores may be probabilities, and
    layers of which what is explained is behind a rectifier run as they were written, which a CamWarning says.

    With `mode="reduce-overhead"` a CUDA device runs each of the two as one CUDA graph. What a call hands out is no part
    of its memory.

    A CAM of a `torch.compile(model)` does this by itself, with the options given there, once inputs of one form come a
    second time: a single map is not worth it. A CamWarning says so when it begins to compile.

    Raises ValueError for a method with a capture of its own, for `detach=False` and for `compute_input_gradient=True`.
    """
    if not _can_be_compiled(cam):
        raise ValueError(
            f"{type(cam).__name__} cannot be compiled with these options: only methods of one forward and one backward "
            "can be, with detach=True and compute_input_gradient=False"
        )
    cam.capture_class = CompiledCaptures(cam, options)


def compile_like(model: nn.Module, cam: Any) -> None:
    """Let the calls of a new CAM run compiled as its model is, if they can be and it is in a `torch.compile`.

    Not where the most of a call are other forwards than that which is captured, as of ScoreCAM.
    """
    options = compile_options(model)
    if options is not None and cam.is_differentiable and _can_be_compiled(cam):
        cam.capture_class = CompiledCaptures(cam, options, at_once=False)


def _can_be_compiled(cam: Any) -> bool:
    """Whether its forward is a `Capture` of layers: not for attention, whose capture is made of blocks."""
    is_plain = cam.capture_class is Capture or isinstance(cam.capture_class, CompiledCaptures)
    captures_layers = cam.uses_layers and is_plain and not hasattr(cam, "capture_of_blocks")
    return captures_layers and cam.detach and not cam.compute_input_gradient


class CompiledCaptures:
    """Makes the captures of a CAM's calls, and keeps the compiled forward. zeros: its own of each form of inputs;
    None where the model runs as it was written. at_once: whether the first inputs of a form are compiled for, or the
    second.
    """

    def __init__(self, cam: Any, options: dict[str, Any], at_once: bool = True) -> None:
        self.cam, self.zeros, self.at_once = cam, dict[Any, list[torch.Tensor] | None](), at_once
        self._options = options
        self._come = set[Any]()
        self._forward: CompiledForward | None = None
        self._layers: tuple[nn.Module, ...] = ()
        self._changes = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledCaptures, (self.cam, self._options, self.at_once)

    def __call__(self, model: nn.Module, layers: Sequence[nn.Module], gradients: bool, detach: bool) -> Capturing:
        how = model, layers, gradients, detach
        if not self.cam.takes_rectified:
            return CompiledCapture(self, Capture(*how), layers, gradients)
        eager = RectifiedCapture(known_rectifiers(model), None, *how, self.cam.spatial_from)
        return CompiledCapture(self, eager, layers, gradients)

    def forward_of(self, layers: Sequence[nn.Module]) -> CompiledForward | None:
        """The compiled forward with these layers; None where the model has changed too often."""
        if self._forward is None or self._layers != tuple(layers) or not self._forward.is_of_now():
            self.zeros.clear()
            self._changes += 1
            self._layers = tuple(layers)
            self._forward = CompiledForward(self.cam.model, layers, self._options)
        return self._forward if self._changes <= _MOST_FORWARDS else None

    def is_to_compile(self, form: Any) -> bool:
        """Whether to compile for inputs of this form, which have come: not twice, and not for the first of them where
        nobody has said so.
        """
        if form in self.zeros:
            return False
        if self.at_once or form in self._come:
            return True
        self._come.add(form)
        return False


class CompiledCapture:
    """A call's `Capture`: the model runs compiled, once a call with inputs of that form has shown that it can be."""

    def __init__(
        self, captures: CompiledCaptures, eager: Capturing, layers: Sequence[nn.Module], gradients: bool
    ) -> None:
        self.runs: Captured = ()
        self._captures, self._eager, self._layers, self._gradients = captures, eager, layers, gradients
        self._zeros: list[torch.Tensor] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing: the model has no hooks, or has lost them."""

    def run(self, inputs: Inputs) -> Any:
        """The model's output. Cost: one forward; the first time for inputs of a form two, a backward and compiling."""
        forward, form = self._captures.forward_of(self._layers), of_form(inputs)
        self._zeros = None if forward is None else self._captures.zeros.get(form)
        if forward is not None and self._zeros is not None:
            outputs, self.runs = self._compiled(forward, self._zeros, inputs)
            return outputs
        with self._eager:
            outputs = self._eager.run(inputs)
        self.runs = self._eager.runs
        if self._captures.is_to_compile(form):
            self._learn(forward, form, inputs, outputs)
        return outputs

    def differentiate(
        self, score: torch.Tensor, keep_graph: bool = False, inputs: Sequence[torch.Tensor] = ()
    ) -> tuple[Sequence[Any], Sequence[torch.Tensor | None]]:
        """The gradients of a score with respect to what each of `runs` returned, see `Capture.differentiate`."""
        if self._zeros is None:
            return self._eager.differentiate(score, keep_graph, inputs)
        return _gradients(score, self._zeros, keep_graph), ()

    def _compiled(
        self, forward: CompiledForward, zeros: Sequence[torch.Tensor], inputs: Inputs
    ) -> tuple[Any, list[tuple[nn.Module, torch.Tensor]]]:
        with as_compiled(), torch.set_grad_enabled(self._gradients):
            outputs, runs = forward(zeros, copied(as_tree(inputs)))
        # What CUDA graphs return is overwritten by the next call; the output is the only part that outlives its own.
        return outputs.clone(), [(self._layers[number], output) for number, output in runs]

    def _learn(self, forward: CompiledForward | None, form: Any, inputs: Inputs, outputs: Any) -> None:
        """Compile the forward for inputs of this form, and keep whether it gives what the model gave."""
        self._captures.zeros[form] = None
        why = "it changes from call to call" if forward is None else self._why_not(outputs)
        if forward is not None and why is None:
            if not self._captures.at_once:
                announce_compiling()
            # x + -0 is x for every x, x + 0 is not for -0.
            zeros = [torch.full_like(output, -0.0, requires_grad=self._gradients) for _, output in self.runs]
            why = self._differs(forward, zeros, inputs, outputs)
            if why is None:
                self._captures.zeros[form] = zeros
        if why is not None:
            issue(CamWarning(f"the model runs as it was written, not compiled: {why}"))

    def _why_not(self, outputs: Any) -> str | None:
        """Why the model is not compiled, as it can be seen before."""
        if not all(isinstance(output, torch.Tensor) and output.is_floating_point() for _, output in self.runs):
            return "a target layer returns something else than one floating-point tensor"
        is_plain = isinstance(outputs, torch.Tensor) and outputs.is_floating_point() and outputs.ndim == _SCORES_NDIM
        if not is_plain or type(outputs.grad_fn).__name__ in MAY_HAND_ON:
            return "its output is not, or may not be, logits of classes (N, classes)"
        return (
            "what is explained is behind the rectifier that follows the layer"
            if self._captures.cam.rectifiers
            else None
        )

    def _differs(
        self, forward: CompiledForward, zeros: Sequence[torch.Tensor], inputs: Inputs, outputs: torch.Tensor
    ) -> str | None:
        """In what the compiled forward differs from the one that was run, in outputs, activations and gradients."""

        def compiled() -> list[torch.Tensor]:
            of_compiled, runs = self._compiled(forward, zeros, inputs)
            gradients = _gradients(of_compiled.sum(), zeros) if self._gradients else ()
            return [of_compiled, *map(itemgetter(1), runs), *gradients]

        activations = [output for _, output in self.runs]
        gradients = _gradients(outputs.sum(), activations, keep_graph=True) if self._gradients else ()
        return difference(compiled, [outputs, *activations, *gradients])


def announce_compiling() -> None:
    """Say that compiling begins, where nobody has asked the CAM for it."""
    issue(CamWarning(_COMPILES))


def _gradients(
    score: torch.Tensor, wanted: Sequence[torch.Tensor], keep_graph: bool = False
) -> tuple[torch.Tensor, ...]:
    with as_compiled():
        return torch.autograd.grad(score, wanted, retain_graph=keep_graph, materialize_grads=True)


def of_form(inputs: Inputs) -> Any:
    """What a forward is compiled for: the inputs' structure, the tensors' shapes and types, and autocast."""
    leaves, structure = tree_flatten(as_tree(inputs))
    forms = [(leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    kinds = {leaf.device.type for leaf in leaves if isinstance(leaf, torch.Tensor)}
    autocast = [torch.get_autocast_dtype(kind) for kind in sorted(kinds) if torch.is_autocast_enabled(kind)]
    return *forms, str(structure), *autocast
