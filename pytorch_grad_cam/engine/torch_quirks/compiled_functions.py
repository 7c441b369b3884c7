"""Functions that torch.compile compiles, each on its own and so that their graphs can be used more than once."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any

import torch

try:
    from torch._functorch import config as _functorch_config
except ImportError:
    _functorch_config = None  # type: ignore[assignment]


def compiled_apart(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """The function, compiled as one graph: where it cannot be, its first call raises.

    PyTorch keeps what it compiled, of which it bears eight at most, by the code of a function, which closures share.
    """
    assert isinstance(function, FunctionType)
    code, names = function.__code__.replace(), function.__globals__
    own = FunctionType(code, names, function.__name__, function.__defaults__, function.__closure__)
    compiled: Callable[..., Any] = torch.compile(own, fullgraph=True, **options)
    return compiled


@contextmanager
def as_compiled() -> Iterator[None]:
    """Within: what is compiled runs compiled, even where the model around it runs as it was written; the graph of what
    it returns is kept as long as `retain_graph` says, which PyTorch 2.6 and later else forbid.
    """
    with ExitStack() as stack:
        if hasattr(torch.compiler, "set_stance"):
            stack.enter_context(torch.compiler.set_stance("default"))
        if hasattr(_functorch_config, "donated_buffer"):
            stack.enter_context(_functorch_config.patch(donated_buffer=False))
        yield
