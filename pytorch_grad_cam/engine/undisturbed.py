"""Run a user's model in evaluation mode and hand it back exactly as it was."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, filterfalse
from operator import attrgetter, is_
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from pytorch_grad_cam.engine.inputs import running_device
from pytorch_grad_cam.engine.torch_quirks.checkpoints import checkpoints_run_once
from pytorch_grad_cam.engine.torch_quirks.compiled_modules import compiled_modules_run_as_written, is_compiled
from pytorch_grad_cam.engine.torch_quirks.quantised_modules import QuantisedWatch, is_quantised

# In evaluation mode: a copy of the statistics of every normalisation would be for nothing.
_WRITES_NO_BUFFERS = "torch.nn.modules."
_WRITES_UNCOUNTED = ("torch.ao.", "torchao.")
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_compiled_call = attrgetter("_compiled_call_impl")  # that of `module.compile()`
_END = object()
_lock = threading.Lock()
_in_use: weakref.WeakKeyDictionary[nn.Module, _Flags] = weakref.WeakKeyDictionary()


class KnownModel:
    """A model's modules and tensors, as they were when they were looked at.

    Looking walks the whole model. To see whether it still has the same modules, parameters and buffers, and the same of
    them compiled, is one pass over lists; flags (training, requires_grad), devices and values are read where they are
    needed, not known.

    learnt: what running it has shown to whoever looked, which holds as long as this does.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.learnt: dict[Any, Any] = {}
        self.modules = list(model.modules())
        parameters = [parameter for parameter in model.parameters() if not _made_in_inference_mode(parameter)]
        sharded = {parameter for module in self.modules if _is_sharded(module) for parameter in module.parameters()}
        self.parameters = [
            parameter for parameter in parameters if parameter.device.type != "meta" and parameter not in sharded
        ]
        self.offloaded: list[tuple[dict[str, Any], str]] = [
            (module._parameters, name)
            for module in self.modules
            for name, parameter in module._parameters.items()
            if parameter is not None and parameter.device.type == "meta"
        ]
        tables = [(module._modules, module._parameters, module._buffers) for module in self.modules]
        # Those of scripted modules are no dicts, and cannot change.
        self._tables = [table for table in chain.from_iterable(tables) if isinstance(table, dict)]
        self._filled, self._empty = list(filter(None, self._tables)), list(filterfalse(None, self._tables))
        self._names = list(chain.from_iterable(self._filled))
        self._contents = [*self._read(), _END]
        self.peculiarities = _peculiarities(self.modules)
        self.made_in_inference_mode = [
            (table, name, tensor)
            for table in self._tables
            for name, tensor in table.items()
            if isinstance(tensor, torch.Tensor) and _made_in_inference_mode(tensor)
        ]
        # What a module remembers, as the anchors of a detector: no buffers, and exchanged by itself at any time.
        self.remembered = [(vars(module), name) for module in self.modules for name in _names_of_tensors(module)]
        self._first_tensor = next(chain(model.parameters(), model.buffers()), None)
        writing = [each for each in self.modules if not type(each).__module__.startswith(_WRITES_NO_BUFFERS)]
        self.watched: list[WatchedBuffer | WatchedCache] = [
            WatchedBuffer(module, name, buffer)
            for module in writing
            for name, buffer in module._buffers.items()
            if buffer is not None and not _made_in_inference_mode(buffer)
        ]
        self.watched += [WatchedCache(vars(module), name) for module in writing for name in _names_of_caches(module)]

    def __reduce__(self) -> tuple[Any, ...]:
        return KnownModel, (self.model,)

    def refreshed(self) -> KnownModel:
        """This, if the model still has the same modules, parameters and buffers; else what is known of it now."""
        same = not any(self._empty) and list(chain.from_iterable(self._filled)) == self._names
        return self if same and all(map(is_, chain(self._read(), (_END,)), self._contents)) else KnownModel(self.model)

    @property
    def device(self) -> torch.device | None:
        """Where the model runs, see `inputs.running_device`."""
        first = self._first_tensor
        if first is None or first.device.type != "meta":
            return None if first is None else first.device
        return running_device(self.model, first)

    def _read(self) -> Iterator[Any]:
        """All children, parameters and buffers, and what is compiled; in C, since every call does this."""
        return chain(chain.from_iterable(map(dict.values, self._filled)), map(_compiled_call, self.modules))


def _peculiarities(modules: list[nn.Module]) -> Callable[[], AbstractContextManager[Any]]:
    """The context that the model needs: of most an empty one."""
    quantised = list(filter(is_quantised, modules))
    are_compiled = any(map(is_compiled, modules))
    return partial(_peculiar, are_compiled, quantised) if are_compiled or quantised else nullcontext


@contextmanager
def _peculiar(are_compiled: bool, quantised: list[nn.Module]) -> Iterator[None]:
    with ExitStack() as stack:
        if are_compiled:
            stack.enter_context(compiled_modules_run_as_written)
        if quantised:
            stack.enter_context(QuantisedWatch(quantised))
        yield


def _names_of_tensors(module: nn.Module) -> set[str]:
    """The attributes that are tensors, or begin as one of the class."""
    own_classes = type(module).__mro__[: type(module).__mro__.index(nn.Module)]
    attributes = chain.from_iterable(vars(each).items() for each in (module, *own_classes))
    return {name for name, value in attributes if isinstance(value, torch.Tensor)}


def _names_of_caches(module: nn.Module) -> list[str]:
    """The attributes that are dicts of nothing but tensors, empty ones too; lists are logs."""
    own = (item for item in vars(module).items() if item[0] not in _OF_EVERY_MODULE and isinstance(item[1], dict))
    return [name for name, value in own if all(isinstance(each, torch.Tensor) for each in value.values())]


def _is_sharded(module: nn.Module) -> bool:
    """Whether FSDP2 gathers its parameters: those gathered take `requires_grad` from the others once, and keep it."""
    return any(base.__name__ == "FSDPModule" for base in type(module).__mro__)


def _made_in_inference_mode(tensor: torch.Tensor) -> bool:
    return not is_lazy(tensor) and tensor.is_inference()  # a parameter of a lazy module may not be asked


class WatchedBuffer:
    """A buffer that its module may write, and within a call a copy of its values.

    The copy is made anew in each call: what writes through `.data` or NumPy, and the kernels of batch normalisation,
    are not counted in the buffer's version.
    """

    def __init__(self, module: nn.Module, name: str, buffer: torch.Tensor) -> None:
        self.table, self.name, self.buffer = module._buffers, name, buffer
        self.counts_writes = not type(module).__module__.startswith(_WRITES_UNCOUNTED)
        self._values: torch.Tensor | None = None
        self._version = -1

    def keep(self) -> None:
        """Remember the values."""
        self._values, self._version = self.buffer.detach().clone(), self.buffer._version

    def restore(self) -> None:
        """Put the buffer back with the values that were kept."""
        self.table[self.name] = self.buffer
        values, self._values = self._values, None
        if values is None:
            return
        if not self.counts_writes or self.buffer._version != self._version or self.buffer.shape != values.shape:
            with torch.no_grad():
                self.buffer.resize_(values.shape).copy_(values)


class WatchedCache:
    """A dict in which its module may keep tensors that it makes in evaluation mode, as attention biases by device.

    What a call leaves there has no graph, and parameters that change afterwards would not be seen.
    """

    def __init__(self, attributes: dict[str, Any], name: str) -> None:
        self.attributes, self.name = attributes, name
        self._cache: Any = None
        self._contents: dict[Any, Any] = {}

    def keep(self) -> None:
        """Remember what it holds."""
        self._cache = self.attributes.get(self.name)
        self._contents = dict(self._cache) if isinstance(self._cache, dict) else {}

    def restore(self) -> None:
        """Put it back as it was kept."""
        cache, contents = self._cache, self._contents
        self._cache, self._contents = None, {}
        if isinstance(cache, dict):
            cache.clear()
            cache.update(contents)
            self.attributes[self.name] = cache


@contextmanager
def undisturbed(model: nn.Module, frozen: bool = True, known: KnownModel | None = None) -> Iterator[KnownModel]:
    """Within: gradients enabled, every submodule in evaluation mode and, if `frozen`, no parameter that requires one.
    What is compiled of the model runs as it was written; quantised modules raise where a gradient would pass them by.

    Frozen, the autograd graph holds only what leads to the tensors that the caller makes require a gradient, and of
    that only what their gradient needs. Afterwards, whatever happened, the flags, the buffers that the model itself
    writes and the random state are as before.
    Several threads may be within at once; the last one out restores the flags. While one is within that is not frozen,
    nothing is. Random numbers that other threads draw meanwhile from the default generator are drawn again.

    known: what was known of the model; without it the model is walked. What is known of it now is handed out.
    """
    states: list[tuple[torch.Generator, torch.Tensor]] = []
    # Out of inference mode gradients are enabled too.
    autograd = torch.inference_mode(False) if torch.is_inference_mode_enabled() else torch.enable_grad()
    with autograd, checkpoints_run_once:
        with _lock:
            flags = _in_use.setdefault(model, _Flags())
            flags.frozen.append(frozen)
        try:
            with _lock:  # a thread that leaves exchanges tensors of the model
                known = KnownModel(model) if known is None or known.model is not model else known.refreshed()
                flags.take(known)
            states += _random_states(known.device)
            with known.peculiarities():
                yield known
        finally:
            for generator, state in states:
                generator.set_state(state)
            with _lock:
                flags.frozen.remove(frozen)
                if not flags.frozen:
                    del _in_use[model]
                    flags.restore()


def _random_states(device: torch.device | None) -> Iterable[tuple[torch.Generator, torch.Tensor]]:
    """Of the generators that a model may draw from: the CPU's and the device's."""
    generators = [torch.default_generator]
    generators += [torch.cuda.default_generators[device.index]] if device is not None and device.type == "cuda" else []
    return zip(generators, map(torch.Generator.get_state, generators), strict=True)


@dataclass(eq=False)
class _Flags:
    """The flags of a model that are switched off while it is in use, and its tensors that autograd cannot use.

    frozen: what each of those asked for that use it now.
    """

    frozen: list[bool] = field(default_factory=list)
    training: list[nn.Module] = field(default_factory=list)
    requiring: list[nn.Parameter] = field(default_factory=list)
    offloaded: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    exchanged: list[tuple[dict[str, Any], str, torch.Tensor]] = field(default_factory=list)
    remembered: list[tuple[dict[str, Any], str, torch.Tensor, torch.Tensor]] = field(default_factory=list)
    watched: list[WatchedBuffer | WatchedCache] = field(default_factory=list)
    usable: dict[torch.Tensor, torch.Tensor] = field(default_factory=dict)

    def take(self, known: KnownModel) -> None:
        training = list(filter(attrgetter("training"), known.modules))
        self.training += training
        for module in training:
            module.training = False
        if known.made_in_inference_mode or known.remembered:
            self._exchange_all(known)
        if len(self.frozen) == 1:
            self.watched = known.watched
            for each in self.watched:
                each.keep()
        if not all(self.frozen):
            self._thaw()
            return
        requiring = list(filter(attrgetter("requires_grad"), known.parameters))
        self.requiring += requiring
        for parameter in requiring:
            parameter.requires_grad = False
        if known.offloaded:
            self._freeze_offloaded(known.offloaded)

    def _freeze_offloaded(self, offloaded: list[tuple[dict[str, Any], str]]) -> None:
        for parameters, name in offloaded:
            if parameters[name].requires_grad:
                parameters[name].requires_grad = False
                self.offloaded.append((parameters, name))

    def _thaw(self) -> None:
        for parameter in self.requiring:
            parameter.requires_grad = True
        self.requiring.clear()
        for parameters, name in self.offloaded:  # accelerate makes new ones whenever a module runs
            parameters[name].requires_grad = True
        self.offloaded = []

    def _exchange_all(self, known: KnownModel) -> None:
        for tensors, name, tensor in known.made_in_inference_mode:
            self._exchange(tensors, name, tensor)
        for attributes, name in known.remembered:
            value = attributes.get(name)
            if isinstance(value, torch.Tensor) and value.is_inference():
                attributes[name] = copy = value.clone()
                self.remembered.append((attributes, name, value, copy))

    def _exchange(self, tensors: dict[str, Any], name: str, tensor: torch.Tensor) -> None:
        """A model that was made in inference mode runs with copies, tied ones with the same copy."""
        if tensors[name] is not tensor:
            return
        if tensor not in self.usable:
            copy = tensor.detach().clone()
            is_parameter = isinstance(tensor, nn.Parameter)
            self.usable[tensor] = nn.Parameter(copy, requires_grad=not all(self.frozen)) if is_parameter else copy
        self.exchanged.append((tensors, name, tensor))
        tensors[name] = self.usable[tensor]

    def restore(self) -> None:
        for module in self.training:
            module.training = True
        for parameter in self.requiring:
            parameter.requires_grad = True
        for parameters, name in self.offloaded:
            parameters[name].requires_grad = True
        for each in self.watched:
            each.restore()
        if self.exchanged or self.remembered:
            self._put_back()

    def _put_back(self) -> None:
        for tensors, name, tensor in self.exchanged:
            tensors[name] = tensor
        for attributes, name, value, copy in self.remembered:
            if attributes.get(name) is copy:
                attributes[name] = value
