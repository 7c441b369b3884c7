"""What a layer returns while it runs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def outputs_of(layer: nn.Module) -> Iterator[list[Any]]:
    """Within: the list gets what each run of the layer in this thread returns."""
    outputs: list[Any] = []
    thread = threading.get_ident()

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if threading.get_ident() == thread:
            outputs.append(output)

    handle = layer.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()
