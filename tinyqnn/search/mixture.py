"""All candidate schemes at once: a weighted sum of what each makes of a tensor, with weights that are learned.

    p = softmax(s)                                                       s the state of a vertex, one number a scheme
    π = softmax((log p + g) / τ),   g_j ~ Gumbel(0, 1)                   a soft sample at temperature τ
    y = Σ_j π_j · Q_j(x)                                                                        AutoQNN eqs. (1), (2)

With v_j = <∂L/∂y, Q_j(x)>, what the loss would gain from more of scheme j:

    ∂L/∂s_j = π_j · (v_j − Σ_k π_k v_k) / τ                     (the log Σ exp s in log p moves all alike and drops out)
    ∂L/∂x   = ∂L/∂y · Σ_j π_j · [scheme j lets the gradient at x pass]                     straight through each scheme

τ → ∞ gives π_j = 1/M, the plain mean; τ → 0 gives π = onehot(argmax_j (log p_j + g_j)), the hard sample of (1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyqnn import kernels
from tinyqnn.nn import Module
from tinyqnn.nn.module import Parameter
from tinyqnn.quant import ActivationQuantizer, Params, Quantizer, WeightQuantizer
from tinyqnn.tensor import Array, Function, Node, Tensor

CHUNK = (
    2**15
)  # numbers at a time: x, the sum and one scheme's values stay in the cache while all schemes have their turn
SMALL = 4096  # up to here it is cheaper to keep the schemes' values than to make them once more


class Mix(Function):
    """y = Σ_j π_j Q_j(x) in one buffer; what the schemes make of a large x is not kept but made again on the way back.

    >>> from tinyqnn.quant import scheme
    >>> s = Tensor(np.zeros(2), requires_grad=True)
    >>> x = Tensor(np.array([-3.0, 1.0]))
    >>> schemes = [scheme("B-1"), scheme("R-2")]
    >>> y = Mix.apply(x, s, schemes=schemes, params=[q.fit(x) for q in schemes], noise=np.zeros(2), temperature=1.0)
    >>> y.sum().backward()
    >>> y.data.tolist(), s.grad.tolist()
    ([-2.5, 1.5], [0.5, -0.5])
    """

    @staticmethod
    def forward(
        ctx: Node,
        x: Array,
        state: Array,
        *,
        schemes: Sequence[Quantizer],
        params: Sequence[Params],
        noise: Array,
        temperature: float,
    ) -> Array:
        share = soft_sample(state, noise, temperature)
        flat, back = in_memory_order(x)
        if flat.size <= SMALL:
            each = np.stack([_values(q, flat, p) for q, p in zip(schemes, params)])  # (M, N)
            ctx.save(x, share, schemes, params, temperature, each)
            return back(share.astype(x.dtype) @ each)
        ctx.save(x, share, schemes, params, temperature, None)
        if (passes := _compiled(schemes, params, x)) is not None:
            return back(kernels.quantize.mix(flat, passes, share))
        y = np.zeros_like(flat)
        for first in range(0, flat.size, CHUNK):
            part, total = flat[first : first + CHUNK], y[first : first + CHUNK]
            for q, p, weight in zip(schemes, params, share.astype(x.dtype)):
                if weight > 0:
                    total += weight * q._quantized(part, p)
        return back(y)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array | None, Array | None]:
        x, share, schemes, params, temperature, each = ctx.saved
        flat, back = in_memory_order(x)
        g = np.empty_like(x)  # the gradient in the order x lies in
        np.copyto(g, grad)
        g = in_memory_order(g)[0]
        limits = [q.limits(**p) for q, p in zip(schemes, params)]
        if each is None and (passes := _compiled(schemes, params, x)) is not None:
            grad_x, v = kernels.quantize.mix_grad(g, flat, passes, limits, share)
        else:
            grad_x, v = np.empty_like(flat), np.zeros(len(schemes)) if each is None else (each @ g).astype(np.float64)
            everywhere = share[[limit is None for limit in limits]].sum().astype(x.dtype)
            for first in range(0, flat.size, CHUNK):
                part, gradient = flat[first : first + CHUNK], g[first : first + CHUNK]
                passing = np.full(part.shape, everywhere)
                for j, (q, p, limit) in enumerate(zip(schemes, params, limits)):
                    if each is None:
                        v[j] += np.einsum("i,i", gradient, q._quantized(part, p))
                    if limit is not None:
                        passing += share[j].astype(x.dtype) * ((limit[0] <= part) & (part <= limit[1]))
                np.multiply(gradient, passing, out=grad_x[first : first + CHUNK])
        grad_s = share * (v - share @ v) / temperature if temperature > 0 else np.zeros_like(v)
        return back(grad_x), grad_s


def _values(q: Quantizer, x: Array, params: Params) -> Array:
    """Q(x), by the compiled pass for arrays of any size: several NumPy calls a scheme take longer."""
    passes = _compiled([q], [params], x)
    return q._quantized(x, params) if passes is None else passes[0](x)


def _compiled(schemes: Sequence[Quantizer], params: Sequence[Params], x: Array) -> list[Any] | None:
    """Every scheme as a compiled pass; None where one has none, or `x` is not for kernels."""
    if x.dtype != np.float32 or kernels.use_reference():
        return None
    passes = [q.compiled(**p) for q, p in zip(schemes, params)]
    return None if any(one is None for one in passes) else passes


def soft_sample(state: Array, noise: Array, temperature: float) -> Array:
    """softmax((log p + g) / τ) with p = softmax(s), in float64; at temperature 0 the hard sample (AutoQNN eq. (1)).

    >>> state = np.log([0.7, 0.2, 0.1])
    >>> [soft_sample(state, np.zeros(3), t).round(3).tolist() for t in (1.0, np.inf)]
    [[0.7, 0.2, 0.1], [0.333, 0.333, 0.333]]
    >>> soft_sample(state, np.array([0.0, 5.0, 0.0]), 0.0).tolist()
    [0.0, 1.0, 0.0]
    """
    z = np.asarray(state, np.float64) + noise  # log p up to a constant, which softmax does not see
    z = z - z.max()
    if temperature == 0:
        return (np.arange(len(z)) == z.argmax()).astype(np.float64)
    e = np.exp(z / temperature)
    return e / e.sum()


class Mixture(Module):
    """What a search puts into a quantizing vertex: training mixes the candidates, evaluation uses the likeliest.

    candidates    notations, such as ["C-3", "P-3"]
    state         s, a Parameter (M,); vertices may share one
    rng           where the Gumbel noise is from
    role          "weights" or "activations"
    after_relu    True if the input is known not to be negative

    `temperature` is τ. Every candidate for activations keeps running averages of its own, so each can be evaluated.

    >>> mixture = Mixture(["B-1", "C-3"], Parameter(np.array([0.0, 1.0])), np.random.default_rng(0), "weights")
    >>> mixture.best, mixture.probabilities()
    (WeightQuantizer(ClipQ(bits=3)), {'B-1': 0.2689414213699951, 'C-3': 0.7310585786300049})
    """

    def __init__(
        self,
        candidates: Sequence[str],
        state: Parameter,
        rng: np.random.Generator,
        role: str,
        after_relu: bool = False,
    ) -> None:
        super().__init__()
        self.state, self.rng, self.temperature = state, rng, 1.0
        for notation in candidates:
            made = (
                WeightQuantizer(notation) if role == "weights" else ActivationQuantizer(notation, after_relu=after_relu)
            )
            self.add_module(notation, made)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.best(x)
        schemes, params = [], []
        for quantizer in self.children():
            scheme = quantizer.scheme
            fitted = scheme.fit(x)
            if isinstance(quantizer, ActivationQuantizer) and scheme.sees_data:
                quantizer.observe(fitted)
            schemes.append(scheme)
            params.append(fitted)
        noise = self.rng.gumbel(size=len(schemes))
        return Mix.apply(x, self.state, schemes=schemes, params=params, noise=noise, temperature=self.temperature)

    @property
    def best(self) -> Module:
        """The likeliest candidate's quantizer, the first of several."""
        return list(self.children())[int(self.state.data.argmax())]

    @property
    def scheme(self) -> Quantizer:
        """The likeliest scheme: what the vertex counts as while the search runs."""
        found: Quantizer = self.best.scheme
        return found

    def probabilities(self) -> dict[str, float]:
        """p = softmax(s), by notation."""
        share = soft_sample(self.state.data, np.zeros(len(self.state.data)), 1.0)
        return dict(zip([name for name, _ in self.named_children()], share.tolist()))


def in_memory_order(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """All numbers of `x` in the order they lie in memory, and the way back to the shape and layout of `x`.

    >>> flat, back = in_memory_order(np.arange(6.0).reshape(2, 3).T)
    >>> flat.tolist(), back(flat).tolist()
    ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]])
    """
    order = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    shape, inverse = [x.shape[axis] for axis in order], np.argsort(order)
    flat = np.ascontiguousarray(x.transpose(order)).reshape(-1)
    return flat, lambda y: y.reshape(shape).transpose(inverse)
