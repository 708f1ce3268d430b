"""What all optimizers share: parameters in groups, each with its own rates, and what is remembered of each parameter.

A subclass writes one method, `update`: its formula, for one parameter, in place. It may write `update_all` as well,
which moves many at once.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from tinyqnn import kernels, warmup
from tinyqnn.tensor import Array, Tensor

if TYPE_CHECKING:
    from tinyqnn.kernels.updates import Row

Group = dict[str, Any]
State = dict[str, Any]
Params = Union[Iterable[Tensor], Iterable[Mapping[str, Any]]]

BLOCK = (
    32768  # elements: 128 kB in float32, so that a block of a parameter and all that belongs to it stays in the cache
)


class Optimizer:
    """The base of SGD and Adam.

    params     parameters, or groups of them: `[{"params": […], "lr": 0.01}, {"params": […]}]`. What a group does not
               say it takes from the arguments that follow; `optimizer.param_groups` may be changed between steps
    defaults   those arguments by name. Numbers must be finite and not negative

    Raises ValueError without parameters, for one in two groups, and for a rate that is no rate; TypeError for anything
    that is not a tensor and for an option that the optimizer does not have.

    >>> from tinyqnn.optim import SGD
    >>> w = Tensor([1.0], requires_grad=True)
    >>> optimizer = SGD([w], lr=0.5)
    >>> (w * w).sum().backward(); optimizer.step(); w.data.tolist()
    [0.0]
    """

    def __init__(self, params: Params, defaults: Mapping[str, Any]) -> None:
        self.defaults = dict(defaults)
        self.param_groups: list[Group] = []
        self.state: dict[Tensor, State] = defaultdict(dict)
        if isinstance(params, (Tensor, Mapping, np.ndarray)):
            raise TypeError(
                f"params is a list of parameters or of groups, got one {type(params).__name__}; put it into a list"
            )
        given = list(params)
        if not given:
            raise ValueError("no parameters to optimize; pass model.parameters()")
        groups: list[Any] = given if isinstance(given[0], Mapping) else [{"params": given}]
        for group in groups:
            self.add_param_group(group)
        warmup.expect(self, _step_once)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Optimize more parameters: `group["params"]`, with what else the group says."""
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(
                'a group is a dictionary with its parameters under "params"; do not mix groups and parameters'
            )
        if unknown := sorted(set(group) - set(self.defaults) - {"params", "initial_lr"}):
            name, options = type(self).__name__, ", ".join(self.defaults)
            raise TypeError(f"{name} has no option {', '.join(unknown)}; it has {options}")
        params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        if not params:
            raise ValueError("a group without parameters; leave it out")
        taken = {id(p) for other in self.param_groups for p in other["params"]}
        for p in params:
            if not isinstance(p, Tensor):
                hint = "; pass model.parameters(), not model.named_parameters()" if isinstance(p, tuple) else ""
                raise TypeError(f"an optimizer moves Tensors, got {type(p).__name__}{hint}")
            if p._node is not None or p.dtype.kind != "f":
                raise ValueError(f"an optimizer moves floating-point tensors that nothing was computed for, not {p!r}")
            if id(p) in taken:
                raise ValueError(f"a parameter of shape {p.shape} is there twice; one update a step is enough")
            taken.add(id(p))
        full = {**self.defaults, **group, "params": params}
        for name, value in full.items():
            for number in value if isinstance(value, (tuple, list)) and name != "params" else [value]:
                if isinstance(number, (int, float)) and not (math.isfinite(number) and number >= 0):
                    raise ValueError(f"{name} is a finite number from 0 upwards, got {number}")
        full.setdefault("initial_lr", full["lr"])  # where a schedule starts from
        self.param_groups.append(full)

    def step(self) -> None:
        """Move every parameter that has a gradient, in place.

        Raises TypeError and ValueError, see `gradient`, before any parameter of the group is moved.
        """
        if warmup.asked:
            warmup.meet(self)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params and (kernels.use_reference() or not self.update_all(params, group)):
                moving = [(p.data, self.gradient(p), self.state[p]) for p in params]
                for param, grad, state in moving:
                    self.update(param, grad, state, group)

    def gradient(self, p: Tensor) -> Array:
        """A parameter's gradient in the parameter's memory order, in which elementwise formulas are fastest.

        Raises TypeError if it is no array, and ValueError if it, or what is remembered, is of another shape than the
        parameter.
        """
        grad: Any = p.grad
        if not isinstance(grad, (np.ndarray, np.generic)):
            raise TypeError(f"a gradient is a NumPy array, got {type(grad).__name__}; set .grad to an array, or None")
        if grad.shape != p.shape:
            raise ValueError(
                f"a parameter of shape {p.shape} has a gradient of shape {grad.shape}; "
                "give it one of its own shape, or None"
            )
        for name, kept in self.state[p].items():
            if isinstance(kept, np.ndarray) and kept.shape != p.shape:
                raise ValueError(
                    f"a parameter of shape {p.shape} has a {name} of shape {kept.shape}: it has been given other data; "
                    "make a new optimizer for it"
                )
        if grad.strides == p.data.strides:
            return np.asarray(grad)
        ordered = np.empty_like(p.data)
        ordered[...] = grad
        return ordered

    def update_all(self, params: list[Tensor], group: Group) -> bool:
        """Move all these parameters of a group, at least one, in compiled loops if those serve; have they been moved?

        The reading copy does not ask.
        """
        return False

    def row(self, params: list[Tensor], *names: str) -> Row:
        """Parameters, what is remembered of each under `names`, and their gradients, for compiled loops.

        Where nothing is remembered yet the parameter itself stands in.
        """
        arrays, states = [p.data for p in params], [self.state[p] for p in params]
        kept = [[state.get(name, array) for state, array in zip(states, arrays)] for name in names]
        grads: list[Any] = [p.grad for p in params]
        row = kernels.updates.Row(arrays, *kept, grads)
        return row if row.serve else kernels.updates.Row(arrays, *kept, [self.gradient(p) for p in params])

    def update(self, param: Array, grad: Array, state: State, group: Group) -> None:
        """Move one parameter; `state` is what is remembered of it, empty in its first step."""
        raise NotImplementedError(f"{type(self).__name__} defines no update")

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Everything that is remembered, in PyTorch's form: parameters are counted through, copies of arrays."""
        numbers = {p: number for number, p in enumerate(self._params())}
        state = {
            numbers[p]: {key: value.copy() if isinstance(value, np.ndarray) else value for key, value in kept.items()}
            for p, kept in self.state.items()
        }
        groups = [{**group, "params": [numbers[p] for p in group["params"]]} for group in self.param_groups]
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what another optimizer of the same kind knew of the same parameters: rates and state.

        Raises ValueError, before anything is changed, if groups, parameters or shapes do not fit.
        """
        here, there = [len(g["params"]) for g in self.param_groups], [len(g["params"]) for g in state["param_groups"]]
        if here != there:
            raise ValueError(f"the state is of groups of {there} parameters, this optimizer has groups of {here}")
        params = list(self._params())
        loaded: dict[Tensor, State] = defaultdict(dict)
        for number, kept in state["state"].items():
            if not 0 <= int(number) < len(params):
                raise ValueError(f"the state speaks of parameter {number}, there are {len(params)}")
            p = params[int(number)]
            loaded[p] = {}
            for key, value in kept.items():
                array = np.asarray(value)
                if array.shape == () and key == "step":
                    loaded[p][key] = int(array)
                elif array.shape != p.shape:
                    raise ValueError(f"{key} of parameter {number}: expected shape {p.shape}, got {array.shape}")
                else:
                    loaded[p][key] = np.empty_like(p.data)  # in the parameter's own memory order
                    loaded[p][key][...] = array
        for group, saved in zip(self.param_groups, state["param_groups"]):
            for key in (*self.defaults, "initial_lr"):
                if key in saved:
                    group[key] = tuple(saved[key]) if isinstance(saved[key], list) else saved[key]
        self.state = loaded

    def _params(self) -> Iterator[Tensor]:
        return (p for group in self.param_groups for p in group["params"])

    def __repr__(self) -> str:
        lines = [
            ", ".join(f"{key}={value}" for key, value in group.items() if key not in ("params", "initial_lr"))
            + f": {len(group['params'])} parameters"
            for group in self.param_groups
        ]
        return f"{type(self).__name__}({'; '.join(lines)})"


def _step_once(optimizer: Optimizer) -> None:
    """Move copies of all parameters: the second process does, see `warmup.py`."""
    for p in optimizer._params():
        p.grad = np.ones_like(p.data)
    optimizer.step()


def blocks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Arrays of one shape, cut into the same pieces: views to compute with in place.

    A formula of ten NumPy calls reads and writes its arrays ten times. Piece by piece it does so in the cache, which
    halves the time of a step on millions of parameters.

    >>> [piece[0].tolist() for piece in blocks(np.ones(2), np.zeros(2))]
    [[1.0, 1.0]]
    """
    first = arrays[0]
    if first.size <= BLOCK:
        yield arrays
        return
    flat = [a.ravel(order="K") for a in arrays]  # in memory order; a view, if the array has no gaps
    if any(a.strides != first.strides for a in arrays) or not all(map(np.may_share_memory, flat, arrays)):
        yield arrays
        return
    for start in range(0, first.size, BLOCK):
        yield tuple([f[start : start + BLOCK] for f in flat])
