"""Vision-language models by name, each with the processor that reads its pictures and prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from pytorch_grad_cam.demo.reader import ReaderProcessor, load_digits_reader
from pytorch_grad_cam.engine.wrappers import unwrapped
from pytorch_grad_cam.zoo.checkpoints import load_state, read_state
from pytorch_grad_cam.zoo.classifiers import made_by_own_code, model_of_transformers
from pytorch_grad_cam.zoo.own_code import is_own_code
from pytorch_grad_cam.zoo.unusable_input import UnusableInput


def load_vision_language(
    name: str, weights: str = "default", model_args: Mapping[str, Any] | None = None, processor: Any = None
) -> tuple[nn.Module, Any]:
    """The vision-language model of that name, in evaluation mode, and its processor.

    name: 'digits', the bundled reader; a folder that transformers saved one to, with its processor, or
    'organisation/name' of the hub; or a class or function of your own, `file.py:name` or `package.module:name`, which
    is called with `model_args` and returns a model, or a model and its processor. processor: in the place of the
    model's own; a class is called.
    weights: 'default', 'none' (random, seeded) or a file with a state dict.
    Raises UnusableInput for an unknown name, where no processor is known, and for a file that does not fit.
    """
    if model_args and not is_own_code(name):
        raise UnusableInput(f"--model-args are for a model of your own, not {name}")
    state = None if weights in ("default", "none") else read_state(weights)[0]
    if is_own_code(name):
        made = made_by_own_code(name, model_args or {})
        model, own = made if isinstance(made, tuple) else (made, None)
    elif name == "digits":
        model, own = load_digits_reader(), ReaderProcessor()
    elif "/" in name or (Path(name) / "config.json").is_file():
        model, own = _from_transformers(name, "none" if state is not None else weights, processor is None)
    else:
        raise UnusableInput(
            f"no vision-language model is called {name!r}: name a folder of transformers, organisation/name, 'digits', "
            "or your own, file.py:name or package.module:name"
        )
    if not isinstance(model, nn.Module):
        raise UnusableInput(f"{name} is or returns {type(model).__name__}, expected an nn.Module")
    model = unwrapped(model)
    if state is not None:
        load_state(model, weights, state)
    reads = own if processor is None else processor() if isinstance(processor, type) else processor
    if reads is None:
        raise UnusableInput(
            f"a prompt needs a processor, and {name} gives none: return a model and its processor, or name one "
            "(--preprocess file.py:name)"
        )
    return model.eval(), reads


def _from_transformers(name: str, weights: str, wants_processor: bool) -> tuple[nn.Module, Any]:
    model = model_of_transformers(name, weights, "AutoModelForImageTextToText")
    if not wants_processor:
        return model, None
    from transformers import AutoProcessor

    return model, AutoProcessor.from_pretrained(name)
