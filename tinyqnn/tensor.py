"""An array that remembers which operation made it can ask, backwards, how a result depends on every input.

This file is the whole engine, in three parts:

1. `Function`: an operation with its forward and, directly under it, its derivative. `Function.apply` is the one door
   that every operation goes through; it runs the forward and leaves a `Node` behind, the record of what ran.
2. `Tensor`: an array with a gradient. `Tensor.backward` walks the nodes in the reverse order of their making.
3. The arithmetic of tensors: sums, products, reductions, indexing and shapes.

Everything else (convolution, normalisation, LSTM, quantizers) is a `Function` in a file of its own.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ContextDecorator
from operator import attrgetter
from types import EllipsisType
from typing import Any, Union

import numpy as np

from tinyqnn import warmup

Array = np.ndarray
Scalar = Union[bool, int, float, np.generic]
TensorLike = Union["Tensor", Array, Scalar]
Axis = Union[None, int, tuple[int, ...]]
Index = Union[int, slice, EllipsisType, None, Array, Sequence[int], tuple[Any, ...]]


class _State:
    """What is switched on and off for a while: recording, and the observers who look on."""

    recording: bool = True
    observers: tuple[Observer, ...] = ()


class no_grad(ContextDecorator):
    """Do not record: inside, results do not require gradients and keep no memory of how they were made.

    >>> x = Tensor([1.0, 2.0], requires_grad=True)
    >>> with no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(_State.recording)
        _State.recording = False

    def __exit__(self, *_: object) -> None:
        _State.recording = self._before.pop()


def is_recording() -> bool:
    """Are operations recorded for `backward` just now?"""
    return _State.recording


def is_unseen() -> bool:
    """Will nobody ask for what operations were given, neither a derivative nor an observer?"""
    return not (_State.recording or _State.observers)


def wants_parts() -> bool:
    """Does an observer look on who wants to see operations one by one?"""
    return bool(_State.observers) and any(observer.parts for observer in _State.observers)


class Observer:
    """Looks on as operations run: the tracer, the cost counter and the profiler are observers.

    Override `on_forward`, `on_backward` or both, and look on with `with MyObserver() as seen:`.

    >>> class Names(Observer):
    ...     def __init__(self): self.names = []
    ...     def on_forward(self, function, args, options, outputs, seconds): self.names.append(function.__name__)
    >>> with Names() as seen:
    ...     y = (Tensor([1.0]) + 2.0) * 3.0
    >>> seen.names
    ['Add', 'Mul']

    parts   while it looks on, what could run as one operation (`nn.norm_relu`) runs as those it is made of. A tracer
            and most others want that; a profiler sets it to False
    """

    parts = True

    def on_forward(
        self,
        function: type[Function],
        args: tuple[Any, ...],
        options: dict[str, Any],
        outputs: tuple[Tensor, ...],
        seconds: float,
    ) -> None:
        """After `function` made `outputs` from `args` (Tensors where they were given as such) and `options`."""

    def on_backward(self, function: type[Function], grads: tuple[Array | None, ...], seconds: float) -> None:
        """After the derivative of `function` turned the gradients of its outputs into `grads`, one an argument."""

    def __enter__(self) -> Any:
        _State.observers += (self,)
        return self

    def __exit__(self, *_: object) -> None:
        last = max(i for i, observer in enumerate(_State.observers) if observer is self)
        _State.observers = _State.observers[:last] + _State.observers[last + 1 :]


class Node:
    """The record of one operation: what it is, what its derivative needs, and where the gradients go.

    As `ctx` it is the first argument of a function's `forward` and `backward`. It keeps arrays that were saved on
    purpose and nothing else, so intermediate results that no derivative asks for are freed at once.
    """

    __slots__ = ("dtype", "edges", "function", "grads", "needs_input_grad", "number", "saved", "shapes")

    _count = itertools.count()
    shapes: tuple[tuple[int, ...], ...]  # of the outputs; these three are known when there are outputs
    dtype: np.dtype
    grads: list[Array | None]

    def __init__(self, function: type[Function], needs_input_grad: tuple[bool, ...]) -> None:
        self.function = function
        self.number = next(Node._count)
        self.needs_input_grad = needs_input_grad
        self.saved: tuple[Any, ...] = ()
        self.edges: tuple[Tensor | tuple[Node, int] | None, ...] | None = None

    def save(self, *values: Any) -> None:
        """Keep `values` for the derivative, which finds them in `ctx.saved`."""
        self.saved = values

    def take_grad(self, index: int) -> Array | None:
        """The gradient that argument `index` has from elsewhere so far, or None.

        Who takes it gives the sum of it and his own back: he can add while he writes, when both would be read again
        to be added. It is not to be written to.
        """
        edge = self.edges[index] if self.edges else None
        if not isinstance(edge, tuple):
            return None
        parent, output = edge
        grad, parent.grads[output] = parent.grads[output], None
        return grad

    def free(self) -> None:
        """Forget everything: called when the derivative has run."""
        self.saved, self.edges, self.grads = (), None, []


class Function:
    """An operation on arrays, with its derivative.

    `forward(ctx, *arrays, **options)` returns an array, or a tuple of arrays. `backward(ctx, *grads)` gets one gradient
    for each output and returns one for each positional argument of forward: an array of the argument's shape, or None.
    `ctx.save(...)` hands values from one to the other; `ctx.needs_input_grad` tells which gradients are asked for.

    >>> class Square(Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save(x)
    ...         return x * x
    ...     @staticmethod
    ...     def backward(ctx, grad):
    ...         (x,) = ctx.saved
    ...         return 2 * x * grad
    >>> x = Tensor([3.0], requires_grad=True)
    >>> Square.apply(x).backward()
    >>> x.grad
    array([6.], dtype=float32)
    """

    @staticmethod
    def forward(*args: Any, **options: Any) -> Any:
        raise NotImplementedError

    @staticmethod
    def backward(*args: Any) -> Any:
        raise NotImplementedError

    @classmethod
    def apply(cls, *args: Any, **options: Any) -> Any:
        """Run the operation on `args`; Tensors among them go in as arrays and, where they require it, get gradients."""
        start = time.perf_counter() if _State.observers else 0.0
        arrays, asked = [], []
        for arg in args:
            if isinstance(arg, Tensor):
                arrays.append(arg.data)
                asked.append(arg.requires_grad)
            else:
                arrays.append(arg)
                asked.append(False)
        needs = tuple(asked) if _State.recording else (False,) * len(args)
        node = Node(cls, needs)
        result = cls.forward(node, *arrays, **options)

        single = not isinstance(result, tuple)
        outputs = (_wrap(result),) if single else tuple([_wrap(array) for array in result])
        if True in needs:
            node.edges = tuple([(arg._node or arg) if need else None for arg, need in zip(args, needs)])
            node.shapes = tuple([output.data.shape for output in outputs])
            node.grads, node.dtype = [None] * len(outputs), _FLOAT32
            for index, output in enumerate(outputs):
                dtype = output.data.dtype
                if dtype.kind == "f":
                    output.requires_grad, output._node, node.dtype = True, (node, index), dtype
            if warmup.cold:
                warmup.warm_up(node.number, _derive, cls, needs, node.saved, [output.data for output in outputs])
        if _State.observers:
            seconds = time.perf_counter() - start
            for observer in _State.observers:
                observer.on_forward(cls, args, options, outputs, seconds)
        return outputs[0] if single else outputs


def _wrap(array: Any) -> Tensor:
    """`Tensor(array)`, at once where there is nothing to convert or to refuse."""
    if type(array) is not np.ndarray or array.dtype.char not in _USUAL:
        return Tensor(array)
    tensor = Tensor.__new__(Tensor)
    tensor.data, tensor.grad, tensor.requires_grad, tensor._node = array, None, False, None
    return tensor


_USUAL = "fd?bBhHiIlLqQ"
_FLOAT32 = np.dtype(np.float32)


def _run_backward(root: Node) -> None:
    """Run every derivative that leads to `root`, latest first. Nodes are numbered as they are made, so that is a sort.

    No recursion: a graph of any depth fits.
    """
    reachable, waiting = {root}, [root]
    while waiting:
        node = waiting.pop()
        if node.edges is None:
            raise RuntimeError(
                f"the record of {node.function.__name__} is gone: backward() frees the graph as it goes. "
                "Run the forward again, or add the losses up and call backward() once"
            )
        for edge in node.edges:
            if isinstance(edge, tuple) and edge[0] not in reachable:
                reachable.add(edge[0])
                waiting.append(edge[0])

    for node in sorted(reachable, key=attrgetter("number"), reverse=True):
        outputs_grads = [
            np.zeros(shape, node.dtype) if grad is None else grad for grad, shape in zip(node.grads, node.shapes)
        ]
        if warmup.asked:
            warmup.meet(node.number)
        start = time.perf_counter() if _State.observers else 0.0
        grads = node.function.backward(node, *outputs_grads)
        if not isinstance(grads, tuple):
            grads = (grads,)
        if _State.observers:
            seconds = time.perf_counter() - start
            for observer in _State.observers:
                observer.on_backward(node.function, grads, seconds)
        assert node.edges is not None
        if len(grads) != len(node.edges):
            raise RuntimeError(
                f"{node.function.__name__}.backward returned {len(grads)} gradients for {len(node.edges)} arguments; "
                "return one for each argument of forward, None where there is none"
            )
        seen = {*map(id, outputs_grads), *map(id, node.saved)}
        for edge, grad in zip(node.edges, grads):
            if edge is not None and grad is not None:
                _deliver(node, edge, grad, seen)
                seen.add(id(grad))  # two arguments may be given one array
        node.free()
    if warmup.cold or warmup.asked:
        warmup.over()


def _derive(function: type[Function], needs: tuple[bool, ...], saved: tuple[Any, ...], grads: list[Array]) -> None:
    """Run a derivative by itself, from what it saved: the second process does, see `warmup.py`."""
    node = Node(function, needs)
    node.saved = saved
    function.backward(node, *grads)


def _deliver(node: Node, edge: Tensor | tuple[Node, int], grad: Array, seen: set[int]) -> None:
    """Add a gradient to what the parent has. Never in place: `grad` may be shared, as in x + x.

    seen   the ids of what belongs to others: gradients that were delivered before, and what the node has saved
    """
    if type(grad) is not np.ndarray:
        if not isinstance(grad, (np.ndarray, np.generic)):
            name, kind = node.function.__name__, type(grad).__name__
            raise TypeError(
                f"{name}.backward returned a {kind} as gradient; return NumPy arrays, None where there is none"
            )
        grad = np.asarray(grad)  # arithmetic on arrays without axes gives NumPy scalars
    if isinstance(edge, tuple):
        parent, index = edge
        shape, dtype = parent.shapes[index], parent.dtype
    else:
        shape, dtype = edge.data.shape, edge.data.dtype
    if grad.shape != shape:
        raise RuntimeError(
            f"{node.function.__name__}.backward returned a gradient of shape {grad.shape}, "
            f"the argument has shape {shape}"
        )
    if grad.dtype != dtype:
        grad = grad.astype(dtype)
    if isinstance(edge, tuple):
        before = parent.grads[index]
        parent.grads[index] = grad if before is None else np.asarray(before + grad)
    elif edge.grad is not None:
        edge.grad = np.asarray(edge.grad + grad)
    else:
        # A leaf keeps its gradient, and its owner may scale it in place: it must be nobody else's memory.
        edge.grad = np.array(grad, order="K") if grad.base is not None or id(grad) in seen else grad


class Tensor:
    """An array of float32, float64, integers or booleans; with `requires_grad=True`, one whose gradient is wanted.

    data           the array itself (shared with the array it was made from, not copied). Numbers and lists of Python
                   floats become float32
    grad           after `backward()` on a result: an array of the same shape, d result / d self; added to, never
                   overwritten, until you set it to None
    requires_grad  keep a record of what is done with this tensor

    >>> x = Tensor([1.0, 2.0], requires_grad=True)
    >>> y = (x * x).sum()
    >>> y.backward()
    >>> x.grad
    array([2., 4.], dtype=float32)
    """

    __slots__ = ("__weakref__", "_node", "data", "grad", "requires_grad")

    # NumPy arrays leave `array * tensor` to the tensor.
    __array_ufunc__ = None

    data: Array
    grad: Array | None
    requires_grad: bool
    _node: tuple[Node, int] | None

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None) -> None:
        if isinstance(data, Tensor):
            data = data.data
        if not isinstance(data, (np.ndarray, np.generic)):
            data = np.asarray(data)
            if data.dtype == np.float64:
                data = data.astype(np.float32)
        data = np.asarray(data, dtype)
        if data.dtype.char not in "fd" and data.dtype.kind not in "iub":
            raise TypeError(
                f"a Tensor holds float32, float64, integers or booleans, got {data.dtype}; "
                "convert it with .astype(np.float32)"
            )
        if requires_grad and data.dtype.kind != "f":
            raise TypeError(
                f"only floating-point tensors have gradients, got {data.dtype}; convert it with .astype(np.float32)"
            )
        self.data = data
        self.grad = None
        self.requires_grad = requires_grad
        self._node = None

    def backward(self, grad: Array | None = None) -> None:
        """Add d self / d leaf to the `grad` of every leaf that self was made from, and free the record.

        grad   the gradient to start from, of self's shape; may be left out if self has one element
        """
        if not self.requires_grad:
            raise RuntimeError(
                "nothing to differentiate: no tensor that led here has requires_grad=True, or it ran under no_grad()"
            )
        if grad is None:
            if self.data.size != 1:
                raise RuntimeError(
                    f"backward() starts from one number, got shape {self.shape}; take a sum or a mean, or pass grad="
                )
            grad = self.data.copy()
            grad.fill(1)
        else:
            grad = np.array(grad.data if isinstance(grad, Tensor) else grad, self.dtype)
            if grad.shape != self.shape:
                raise ValueError(f"grad has shape {grad.shape}, the tensor has shape {self.shape}")
        if self._node is None:
            self.grad = grad if self.grad is None else np.asarray(self.grad + grad)
            return
        node, index = self._node
        if node.edges is not None:
            node.grads[index] = grad
        _run_backward(node)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def T(self) -> Tensor:
        return self.permute(*reversed(range(self.ndim)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """`np.asarray(tensor)` is its array; without this NumPy would make an array of objects."""
        return np.array(self.data, dtype) if copy else np.asarray(self.data, dtype)

    def detach(self) -> Tensor:
        """The same array without its history."""
        return Tensor(self.data)

    def numpy(self) -> Array:
        """The array itself, as `data`."""
        return self.data

    def item(self) -> bool | int | float:
        """The one element as a Python number."""
        return self.data.item()

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    def __float__(self) -> float:
        return float(self.data.item())

    def __bool__(self) -> bool:
        return bool(self.data)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("a tensor of one number has no length")
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({np.array2string(self.data, prefix='Tensor(', separator=', ')}, {self.dtype}{grad})"

    def __add__(self, other: TensorLike) -> Tensor:
        return Add.apply(self, other)

    def __radd__(self, other: TensorLike) -> Tensor:
        return Add.apply(other, self)

    def __sub__(self, other: TensorLike) -> Tensor:
        return Sub.apply(self, other)

    def __rsub__(self, other: TensorLike) -> Tensor:
        return Sub.apply(other, self)

    def __mul__(self, other: TensorLike) -> Tensor:
        return Mul.apply(self, other)

    def __rmul__(self, other: TensorLike) -> Tensor:
        return Mul.apply(other, self)

    def __truediv__(self, other: TensorLike) -> Tensor:
        return Div.apply(self, other)

    def __rtruediv__(self, other: TensorLike) -> Tensor:
        return Div.apply(other, self)

    def __pow__(self, exponent: float) -> Tensor:
        return Pow.apply(self, exponent=exponent)

    def __neg__(self) -> Tensor:
        return Neg.apply(self)

    def __matmul__(self, other: TensorLike) -> Tensor:
        return MatMul.apply(self, other)

    def __rmatmul__(self, other: TensorLike) -> Tensor:
        return MatMul.apply(other, self)

    def __getitem__(self, index: Index | Tensor) -> Tensor:
        if isinstance(index, tuple):
            index = tuple(part.data if isinstance(part, Tensor) else part for part in index)
        return GetItem.apply(self, index=index.data if isinstance(index, Tensor) else index)

    def exp(self) -> Tensor:
        return Exp.apply(self)

    def log(self) -> Tensor:
        return Log.apply(self)

    def sqrt(self) -> Tensor:
        return Pow.apply(self, exponent=0.5)

    def abs(self) -> Tensor:
        return Abs.apply(self)

    def clip(self, min: float | None = None, max: float | None = None) -> Tensor:
        return Clip.apply(self, min=min, max=max)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return Sum.apply(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return Mean.apply(self, axis=axis, keepdims=keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return Max.apply(self, axis=axis, keepdims=keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return Min.apply(self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements, in NCHW order, in another shape; one length may be -1."""
        return Reshape.apply(self, shape=_as_tuple(shape))

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Merge the axes from `start_dim` to `end_dim` into one, in NCHW order."""
        return Flatten.apply(self, start_dim=start_dim, end_dim=end_dim)

    def permute(self, *axes: Any) -> Tensor:
        """Reorder the axes: axis i of the result is axis `axes[i]` of self."""
        return Permute.apply(self, axes=_as_tuple(axes))

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Swap two axes."""
        axes = list(range(self.ndim))
        axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
        return Permute.apply(self, axes=tuple(axes))


def _as_tuple(given: tuple[Any, ...]) -> tuple[int, ...]:
    """reshape(2, 3) and reshape((2, 3)) mean the same."""
    return tuple(given[0]) if len(given) == 1 and isinstance(given[0], (tuple, list)) else given


def unbroadcast(grad: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient over the axes along which an operand of `shape` was repeated, so that it has that shape again.

    >>> unbroadcast(np.ones((4, 3)), (1, 3)).tolist()
    [[4.0, 4.0, 4.0]]
    """
    if grad.shape == shape:
        return grad
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    repeated = tuple([axis for axis, length in enumerate(shape) if length == 1 and grad.shape[axis] != 1])
    return grad.sum(axis=repeated, keepdims=True)


def _spread(grad: Array, axis: Axis, keepdims: bool, shape: tuple[int, ...]) -> Array:
    """The gradient of a reduction, repeated along the axes that were reduced."""
    if axis is not None and not keepdims:
        grad = np.expand_dims(grad, axis)
    return np.broadcast_to(grad, shape)


class Add(Function):
    """x + y."""

    @staticmethod
    def forward(ctx: Node, x: Array, y: Array) -> Array:
        ctx.save(np.shape(x), np.shape(y))
        return x + y

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array | None, Array | None]:
        x_shape, y_shape = ctx.saved
        need_x, need_y = ctx.needs_input_grad
        return unbroadcast(grad, x_shape) if need_x else None, unbroadcast(grad, y_shape) if need_y else None


class Sub(Function):
    """x − y."""

    @staticmethod
    def forward(ctx: Node, x: Array, y: Array) -> Array:
        ctx.save(np.shape(x), np.shape(y))
        return x - y

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array | None, Array | None]:
        x_shape, y_shape = ctx.saved
        need_x, need_y = ctx.needs_input_grad
        return unbroadcast(grad, x_shape) if need_x else None, unbroadcast(-grad, y_shape) if need_y else None


class Mul(Function):
    """x · y, element by element."""

    @staticmethod
    def forward(ctx: Node, x: Array, y: Array) -> Array:
        need_x, need_y = ctx.needs_input_grad
        ctx.save(x if need_y else None, y if need_x else None, np.shape(x), np.shape(y))
        return x * y

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array | None, Array | None]:
        x, y, x_shape, y_shape = ctx.saved
        need_x, need_y = ctx.needs_input_grad
        return unbroadcast(grad * y, x_shape) if need_x else None, unbroadcast(grad * x, y_shape) if need_y else None


class Div(Function):
    """x / y, element by element."""

    @staticmethod
    def forward(ctx: Node, x: Array, y: Array) -> Array:
        ctx.save(x if ctx.needs_input_grad[1] else None, y, np.shape(x))
        return x / y

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array | None, Array | None]:
        x, y, x_shape = ctx.saved
        need_x, need_y = ctx.needs_input_grad
        grad_x = unbroadcast(grad / y, x_shape) if need_x else None
        grad_y = unbroadcast(-grad * x / (y * y), np.shape(y)) if need_y else None
        return grad_x, grad_y


class Neg(Function):
    """−x."""

    @staticmethod
    def forward(ctx: Node, x: Array) -> Array:
        return -x

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        return -grad


class Pow(Function):
    """xᵖ for a constant exponent p."""

    @staticmethod
    def forward(ctx: Node, x: Array, *, exponent: float) -> Array:
        if not isinstance(exponent, (int, float, np.number)):
            raise TypeError("the exponent of ** is a number; for a tensor as exponent write (y * x.log()).exp()")
        ctx.save(x, exponent)
        return x**exponent

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        x, exponent = ctx.saved
        if exponent == 0:  # x⁰ = 1 everywhere, at x = 0 too, where x⁻¹ is infinite
            return np.zeros_like(grad)
        return grad * exponent * x ** (exponent - 1)


class Exp(Function):
    """eˣ."""

    @staticmethod
    def forward(ctx: Node, x: Array) -> Array:
        y = np.exp(x)
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        (y,) = ctx.saved
        return grad * y


class Log(Function):
    """ln x."""

    @staticmethod
    def forward(ctx: Node, x: Array) -> Array:
        ctx.save(x)
        return np.log(x)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        (x,) = ctx.saved
        return grad / x


class Abs(Function):
    """|x|. At x = 0 the gradient is 0, the middle of the subgradients."""

    @staticmethod
    def forward(ctx: Node, x: Array) -> Array:
        ctx.save(x)
        return np.abs(x)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        (x,) = ctx.saved
        return grad * np.sign(x)


class Clip(Function):
    """min(max(x, lo), hi). The gradient passes where lo ≤ x ≤ hi, both ends included."""

    @staticmethod
    def forward(ctx: Node, x: Array, *, min: float | None, max: float | None) -> Array:
        inside = np.ones(x.shape, bool)
        if min is not None:
            inside &= x >= min
        if max is not None:
            inside &= x <= max
        ctx.save(inside)
        return np.clip(x, min, max)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        (inside,) = ctx.saved
        return grad * inside


class MatMul(Function):
    """x @ y: the matrix product over the last two axes, the others broadcast; vectors as in NumPy."""

    @staticmethod
    def forward(ctx: Node, x: Array, y: Array) -> Array:
        ctx.save(x, y)
        return np.matmul(x, y)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array | None, Array | None]:
        x, y = ctx.saved
        x2 = x[None, :] if x.ndim == 1 else x  # (k,) -> (1, k)
        y2 = y[:, None] if y.ndim == 1 else y  # (k,) -> (k, 1)
        if y.ndim == 1:
            grad = grad[..., None]
        if x.ndim == 1:
            grad = grad[..., None, :]  # grad is (…, m, n) from here on
        need_x, need_y = ctx.needs_input_grad
        grad_x = unbroadcast(grad @ np.swapaxes(y2, -1, -2), x2.shape).reshape(x.shape) if need_x else None
        grad_y = unbroadcast(np.swapaxes(x2, -1, -2) @ grad, y2.shape).reshape(y.shape) if need_y else None
        return grad_x, grad_y


class Sum(Function):
    """Σ x over `axis` (all axes if None)."""

    @staticmethod
    def forward(ctx: Node, x: Array, *, axis: Axis, keepdims: bool) -> Array:
        ctx.save(axis, keepdims, x.shape)
        return x.sum(axis=axis, keepdims=keepdims)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        axis, keepdims, shape = ctx.saved
        return _spread(grad, axis, keepdims, shape)


class Mean(Function):
    """Σ x / n over `axis` (all axes if None), n the number of elements averaged."""

    @staticmethod
    def forward(ctx: Node, x: Array, *, axis: Axis, keepdims: bool) -> Array:
        y = x.mean(axis=axis, keepdims=keepdims)
        ctx.save(axis, keepdims, x.shape, x.size // max(y.size, 1))
        return y

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        axis, keepdims, shape, n = ctx.saved
        return _spread(grad / n, axis, keepdims, shape)


class Max(Function):
    """The largest element over `axis`. Elements that share the maximum share its gradient equally."""

    @staticmethod
    def forward(ctx: Node, x: Array, *, axis: Axis, keepdims: bool) -> Array:
        top = x.max(axis=axis, keepdims=True)
        winners = x == top
        ctx.save(winners / winners.sum(axis=axis, keepdims=True, dtype=x.dtype), axis, keepdims)
        return top if keepdims else x.max(axis=axis)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        share, axis, keepdims = ctx.saved
        return share * _spread(grad, axis, keepdims, share.shape)


class Min(Function):
    """The smallest element over `axis`. Elements that share the minimum share its gradient equally."""

    @staticmethod
    def forward(ctx: Node, x: Array, *, axis: Axis, keepdims: bool) -> Array:
        bottom = x.min(axis=axis, keepdims=True)
        winners = x == bottom
        ctx.save(winners / winners.sum(axis=axis, keepdims=True, dtype=x.dtype), axis, keepdims)
        return bottom if keepdims else x.min(axis=axis)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        return Max.backward(ctx, grad)


class Reshape(Function):
    """The same elements in another shape."""

    @staticmethod
    def forward(ctx: Node, x: Array, *, shape: tuple[int, ...]) -> Array:
        ctx.save(x.shape)
        return x.reshape(shape)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        (shape,) = ctx.saved
        return grad.reshape(shape)


class Flatten(Function):
    """(d0, …, di, …, dj, …) -> (d0, …, di·…·dj, …)."""

    @staticmethod
    def forward(ctx: Node, x: Array, *, start_dim: int, end_dim: int) -> Array:
        axes = max(x.ndim, 1)
        if not (-axes <= start_dim < axes and -axes <= end_dim < axes and start_dim % axes <= end_dim % axes):
            raise ValueError(f"flatten: there are no axes {start_dim} to {end_dim} in an input of shape {x.shape}")
        ctx.save(x.shape)
        start, end = start_dim % axes, end_dim % axes
        return x.reshape((*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        (shape,) = ctx.saved
        return grad.reshape(shape)


class Permute(Function):
    """The same elements with the axes in another order."""

    @staticmethod
    def forward(ctx: Node, x: Array, *, axes: tuple[int, ...]) -> Array:
        ctx.save(axes)
        return x.transpose(axes)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        (axes,) = ctx.saved
        return grad.transpose(np.argsort([axis % len(axes) for axis in axes]))


class GetItem(Function):
    """x[index]. An element taken twice gets both gradients."""

    @staticmethod
    def forward(ctx: Node, x: Array, *, index: Any) -> Array:
        ctx.save(x.shape, index)
        return x[index]

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        shape, index = ctx.saved
        grad_x = np.zeros(shape, grad.dtype)
        parts = index if isinstance(index, tuple) else (index,)
        if all(part is None or isinstance(part, (int, slice, EllipsisType)) for part in parts):
            grad_x[index] = grad  # slices take nothing twice
        else:
            np.add.at(grad_x, index, grad)
        return grad_x
