"""Weights from a file: whatever the state dict is nested in and its names begin with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.zoo.preprocessing import IMAGENET_CLASSES
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

State = Mapping[str, torch.Tensor]
# What a checkpoint calls the weights, of several entries the first that is there.
_NESTING = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "ema")
_SHOWN = 3  # of the keys that differ


def read_state(file: str) -> tuple[State, list[str]]:
    """The state dict in a file of torch.save or safetensors, and what was undone.

    Raises UnusableInput for a file without one.
    """
    if not Path(file).is_file():
        raise UnusableInput(f"there is no weights file {file}: pass 'default', 'none' or a file that exists")
    content, undone = _content(file), []
    while isinstance(content, Mapping) and not _is_state(content):
        name = next((name for name in _NESTING if isinstance(content.get(name), Mapping)), None)
        if name is None:
            break
        content = content[name]
        undone.append(f"in {name!r}")
    if not isinstance(content, Mapping) or not content or not _is_state(content):
        found = (
            f"a dict with {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else type(content)
        )
        raise UnusableInput(f"{file} has no state dict, but {found}: write one by torch.save(model.state_dict(), file)")
    return content, undone


def load_state(model: nn.Module, file: str, state: State) -> list[str]:
    """Load a state dict into a model without what its names begin with; return what was undone.

    Raises UnusableInput, which names the first keys that differ, where it does not fit.
    """
    expected = model.state_dict()
    fitting, undone = _without_prefix(state, expected)
    differences = _differences(fitting, expected)
    if differences:
        raise UnusableInput(f"{file} does not fit {type(model).__name__}: {'; '.join(differences)}")
    model.load_state_dict(fitting)
    return undone


def classes_in(state: State, model: nn.Module) -> int | None:
    """How many classes the last layer of a state dict has, where those of the model are ImageNet's; None if as many."""
    heads = [
        name
        for name, module in model.named_modules()
        if IMAGENET_CLASSES in (getattr(module, "out_features", None), getattr(module, "out_channels", None))
    ]
    for name in reversed(heads):
        found = [each for key, each in state.items() if f".{key}".endswith(f".{name}.weight")]
        if found:
            return None if len(found[-1]) == IMAGENET_CLASSES else len(found[-1])
    return None


def _content(file: str) -> Any:
    try:
        return _of_safetensors(file) if file.endswith(".safetensors") else torch.load(file, "cpu", weights_only=True)
    except ImportError as error:
        raise UnusableInput(f"{file} needs safetensors: pip install safetensors") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UnusableInput(
            f"{file} is no state dict that can be read without running code of it ({reason}): write one by "
            "torch.save(model.state_dict(), file)"
        ) from error


def _of_safetensors(file: str) -> Any:
    from safetensors.torch import load_file

    return load_file(file)


def _is_state(content: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items())


def _without_prefix(state: State, expected: State) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The state without the prefix that makes most of its names those of the model, and without other entries."""
    if any(key in expected for key in state) or not expected:
        return dict(state), []
    first = next(iter(expected))
    prefixes = {key[: -len(first)] for key in state if key.endswith(f".{first}")}
    if not prefixes:
        return dict(state), []
    prefix = max(sorted(prefixes), key=lambda each: sum(f"{each}{key}" in state for key in expected))
    others = [key for key in state if not key.startswith(prefix)]
    undone = [f"without the prefix {prefix!r}"]
    if others:
        undone.append(f"without {len(others)} other entries, such as {others[0]}")
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}, undone


def _differences(state: State, expected: State) -> list[str]:
    of_other_shapes = [
        f"{key} {tuple(state[key].shape)} for {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    differing = {
        "missing": [key for key in expected if key not in state],
        "not in the model": [key for key in state if key not in expected],
        "of another shape": of_other_shapes,
    }
    return [f"{what}: {_some(keys)}" for what, keys in differing.items() if keys]


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
