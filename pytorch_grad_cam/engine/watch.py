"""The hooks of one call on modules of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.utils.hooks import RemovableHandle

if TYPE_CHECKING:
    from typing_extensions import Self

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
_lock = Lock()


class Watch:
    """A context: within, `seen` is called behind each run of the modules in this thread, `before` in front of it.

    `seen` comes before all other hooks behind a module: a model whose own hooks record outputs, as transformers' do,
    goes on with the records of what `seen` returned.
    """

    def __init__(self, modules: Iterable[nn.Module], before: Callable[[], Any] | None = None) -> None:
        self._modules, self._before = modules, before
        self._handles: list[RemovableHandle] = []

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> Any:
        """What takes the place of a module's output; None leaves it. inputs: its arguments (args, kwargs)."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread = get_ident()
        with _lock:  # PyTorch numbers hooks without one: two threads may get the same number, and lose a hook
            for module in self._modules:
                if self._before is not None:
                    self._handles.append(module.register_forward_pre_hook(self._starts))
                self._handles.append(module.register_forward_hook(self._ran, prepend=True, with_kwargs=True))
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def starts(self, module: nn.Module, args: Any) -> Any:
        """What takes the place of a module's positional arguments, a tuple; None leaves them."""
        if self._before is not None:
            self._before()

    def _starts(self, module: nn.Module, args: Any) -> Any:
        return self.starts(module, args) if get_ident() == self._thread else None

    def _ran(self, module: nn.Module, args: tuple[Any, ...], *kwargs_and_output: Any) -> Any:
        if get_ident() == self._thread:
            # Another thread may see the hook before, or after, PyTorch knows that it wants the keyword arguments.
            kwargs, output = ({}, *kwargs_and_output)[-2:]
            return self.seen(module, (args, kwargs), output)
        return None


class Outputs(Watch):
    """What each run of the modules in this thread returned: `kept`."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__(modules)
        self.kept: list[Any] = []

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> None:
        self.kept.append(output)
