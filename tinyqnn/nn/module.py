"""A module is parameters, and a forward that uses them; modules inside modules make a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from tinyqnn.tensor import Array, Tensor


class Parameter(Tensor):
    """A tensor that a module learns: assign one to an attribute of a module and the module knows it.

    >>> Parameter(np.zeros(2, np.float32)).requires_grad
    True
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad=requires_grad)


class Keys(NamedTuple):
    """What `load_state_dict` did not find, and what it found no place for.

    >>> Module().load_state_dict({"weight": np.ones(2)}, strict=False)
    Keys(missing=[], unexpected=['weight'])
    """

    missing: list[str]
    unexpected: list[str]


class Module:
    """The base of every layer and network. Subclasses set attributes in `__init__` and define `forward`.

    Attributes that are Parameters, Modules or buffers (arrays given to `register_buffer`) are found by
    `parameters()`, `modules()` and `state_dict()` under the names they were assigned to, nested names joined by dots.

    >>> class Double(Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.factor = Parameter(np.float32(2))
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> double = Double()
    >>> double(Tensor([3.0])).data.tolist(), list(double.state_dict())
    ([6.0], ['factor'])
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _modules: dict[str, Module]
    _buffers: dict[str, Array]

    def __init__(self) -> None:
        self.__dict__.update(training=True, _parameters={}, _modules={}, _buffers={})

    def forward(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.forward(*args, **options)

    def __setattr__(self, name: str, value: Any) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"call super().__init__() before setting attributes of {type(self).__name__}")
        home: dict[str, Any] = self.__dict__
        if isinstance(value, Parameter):
            home = self._parameters
        elif isinstance(value, Module):
            home = self._modules
        elif name in self._buffers and isinstance(value, (np.ndarray, np.generic)):
            home, value = self._buffers, np.asarray(value)
        # Elsewhere the name is forgotten; where it stays, it keeps its place in the order.
        for kind in (self._parameters, self._modules, self._buffers, self.__dict__):
            if kind is not home:
                kind.pop(name, None)
        home[name] = value

    def __getattr__(self, name: str) -> Any:
        state = self.__dict__
        for kind in ("_parameters", "_modules", "_buffers"):
            if kind in state and name in state[kind]:
                return state[kind][name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for kind in (self._parameters, self._modules, self._buffers, self.__dict__):
            if name in kind:
                del kind[name]
                return
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def register_buffer(self, name: str, array: Array) -> None:
        """Keep an array that is no parameter but belongs to the state, such as a running average."""
        self.__dict__.pop(name, None)
        self._buffers[name] = np.asarray(array)

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Keep a parameter under a name that is not written in the code; None marks one that is left out."""
        self._parameters[name] = parameter

    def add_module(self, name: str, module: Module) -> None:
        """Keep a module under a name that is not written in the code."""
        self._modules[name] = module

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, each once, with their dotted names."""
        seen: set[int] = set()
        waiting = [(prefix, self)]
        while waiting:
            name, module = waiting.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield name, module
            children = [(f"{name}.{key}" if name else key, child) for key, child in module._modules.items()]
            waiting.extend(reversed(children))

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def children(self) -> Iterator[Module]:
        """The modules directly below this one."""
        return iter(self._modules.values())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one, with their names."""
        return iter(self._modules.items())

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Every parameter, each once even if shared, with its dotted name."""
        seen: set[int] = set()
        for path, module in self.named_modules(prefix):
            for name, parameter in module._parameters.items():
                if parameter is not None and id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield (f"{path}.{name}" if path else name), parameter

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter, each once even if shared."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """Every buffer with its dotted name."""
        for path, module in self.named_modules():
            for name, array in module._buffers.items():
                yield (f"{path}.{name}" if path else name), array

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def train(self, mode: bool = True) -> Any:
        """Training mode, for this module and all below: dropout drops, batch norm uses the batch. Returns self."""
        for module in self.modules():
            module.__dict__["training"] = mode
        return self

    def eval(self) -> Any:
        """Evaluation mode, for this module and all below. Returns self."""
        return self.train(False)

    def _named_state(self) -> Iterator[tuple[str, Array]]:
        """Every array of the state under every name it has: parameters and buffers, module by module."""
        waiting: list[tuple[str, Module]] = [("", self)]
        while waiting:
            path, module = waiting.pop()
            dot = f"{path}." if path else ""
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    yield dot + name, parameter.data
            for name, array in module._buffers.items():
                yield dot + name, array
            waiting.extend(reversed([(dot + name, child) for name, child in module._modules.items()]))

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers, by dotted name, as PyTorch names them."""
        return {name: array.copy() for name, array in self._named_state()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> Keys:
        """Copy the arrays of `state` into the parameters and buffers, in place.

        state    arrays by dotted name; PyTorch tensors are taken as well
        strict   every name must be there, and none too many; otherwise what fits is loaded

        Returns the names that were missing and those that were unexpected. Raises ValueError, before anything is
        changed, naming every missing and unexpected key and every shape that does not fit.
        """
        own = dict(self._named_state())
        given = {name: np.asarray(value) for name, value in state.items()}
        keys = Keys([name for name in own if name not in given], [name for name in given if name not in own])
        problems = []
        if strict and keys.missing:
            problems.append("missing: " + ", ".join(keys.missing))
        if strict and keys.unexpected:
            problems.append("unexpected: " + ", ".join(keys.unexpected))
        for name, array in own.items():
            if name in given and given[name].shape != array.shape:
                problems.append(f"{name}: expected shape {array.shape}, got {given[name].shape}")
            elif name in given and given[name].dtype.kind not in "fiub":
                problems.append(f"{name}: expected numbers, got an array of {given[name].dtype}")
        if problems:
            raise ValueError(
                f"the state does not fit this {type(self).__name__}:\n  "
                + "\n  ".join(problems)
                + ("\nload what fits with strict=False" if strict and (keys.missing or keys.unexpected) else "")
            )
        for name, array in own.items():
            if name in given:
                array[...] = given[name]
        return keys

    def to(self, dtype: Any) -> Any:
        """Turn all floating-point parameters and buffers into float32 or float64. Returns self."""
        for module in self.modules():
            for parameter in module._parameters.values():
                if parameter is not None and parameter.dtype.kind == "f":
                    parameter.data = parameter.data.astype(dtype)
                    parameter.grad = None if parameter.grad is None else parameter.grad.astype(dtype)
            for name, array in module._buffers.items():
                if array.dtype.kind == "f":
                    module._buffers[name] = array.astype(dtype)
        return self

    def extra_repr(self) -> str:
        """What stands between the brackets of the module's line when it is printed."""
        return ""

    def __repr__(self) -> str:
        lines = []
        for name, child in self._modules.items():
            head, *tail = repr(child).split("\n")
            lines += [f"  ({name}): {head}", *(f"  {line}" for line in tail)]
        inner = self.extra_repr()
        return (
            f"{type(self).__name__}({inner})"
            if not lines
            else "\n".join([f"{type(self).__name__}({inner}", *lines, ")"])
        )


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Inside, `model` is in evaluation mode; afterwards every module is as it was, for some may have been frozen.

    >>> model = Module()
    >>> with evaluating(model):
    ...     model.training
    False
    >>> model.training
    True
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.__dict__["training"] = training
