"""Arrays that quantizers have stumbled over, for hypothesis to draw from."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import tinyqnn as tq

EVERY = [
    tq.quant.scheme(name)
    for name in (
        "B-1 T-2 Q-2 F-2 F-3 F-8 R-1 R-3 R-8 Z-2 Z-3 Z-8 C-1 C-2 C-3 C-8 P-2 P-3 P-4 U-2 U-3 U-8 PACT-1 PACT-3 PACT-8"
    ).split()
] + [
    tq.quant.Uniform(bits=2, levels=4),
    tq.quant.Uniform(bits=4, levels=16),
    tq.quant.Uniform(bits=1, signed=False),
    tq.quant.Uniform(bits=3, signed=False),
]
PER_CHANNEL = [q for q in EVERY if q.sees_data]


def numbers(dtype: type) -> st.SearchStrategy[float]:
    """Zeros, ties, plain numbers, and huge and tiny ones whose squares still fit."""
    width = np.dtype(dtype).itemsize * 8
    top = float(np.float32(1e30))
    return st.one_of(
        st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, 2.0, -3.0, 7.0, 1e-3, 1024.0]),
        st.floats(-4, 4, width=width),
        st.floats(-top, top, width=width, allow_subnormal=True),
    )


def tensors(dtypes: tuple[type, ...] = (np.float32, np.float64), min_dims: int = 1) -> st.SearchStrategy[np.ndarray]:
    """Small arrays of 1 to 3 axes; about half of them with mixed magnitudes, some constant, some non-contiguous."""
    shapes = array_shapes(min_dims=min_dims, max_dims=3, max_side=6)

    def of(dtype: type) -> st.SearchStrategy[np.ndarray]:
        mixed = arrays(dtype, shapes, elements=numbers(dtype))
        plain = arrays(dtype, shapes, elements=st.floats(-4, 4, width=np.dtype(dtype).itemsize * 8))
        constant = st.builds(lambda shape, value: np.full(shape, value, dtype), shapes, numbers(dtype))
        return st.one_of(mixed, plain, constant, mixed.map(np.transpose), plain.map(lambda x: np.repeat(x, 2, -1)[..., ::2]))

    return st.sampled_from(dtypes).flatmap(of)
