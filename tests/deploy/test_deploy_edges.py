"""Where codes would be a matter of luck: sums that lie on an edge of the next scheme, or next to one."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from tinyqnn import deploy, graph, nn
from tinyqnn import functional as F
from tinyqnn.deploy.agreement import recording
from tinyqnn.nn.module import evaluating
from tinyqnn.tensor import Observer, Tensor, no_grad

NEXT = "last.quant.input"


class Layers(nn.Module):
    """A convolution, a batch norm or none, and the quantizer of what follows."""

    def __init__(self, channels, bias, norm, rng):
        super().__init__()
        self.first = nn.Conv2d(channels, 5, 3, padding=1, bias=bias, rng=rng)
        self.norm = nn.BatchNorm2d(5) if norm else None
        self.last = nn.Conv2d(5, 2, 1, rng=rng)

    def forward(self, x):
        y = self.first(x)
        return self.last(F.relu(self.norm(y)) if self.norm is not None else y)


class Parts(Observer):
    """While it looks on, products are added up in float32, value by value."""


@given(
    channels=st.integers(1, 30), bias=st.booleans(), norm=st.booleans(), seed=st.integers(0, 9999),
    weights=st.sampled_from(["B-1", "T-2", "C-2", "C-3", "P-3", "U-3", "F-3"]),
    activations=st.sampled_from(["C-1", "C-2", "C-3", "P-3", "U-4", "PACT-3", "F-3"]), data=st.data(),
)  # fmt: skip
@example(channels=2, bias=False, norm=False, seed=0, weights="C-3", activations="C-3", data=None)
def test_a_code_on_an_edge_is_the_packed_models(channels, bias, norm, seed, weights, activations, data):
    """The scale of the next scheme is drawn so that an edge lies on one of the sums, to the last bit, or beside it."""
    rng = np.random.default_rng(seed)
    model = Layers(channels, bias, norm, rng)
    for name, array in [*model.named_buffers(), *((name, p.data) for name, p in model.named_parameters())]:
        if array.ndim == 1:
            array[...] = rng.uniform(0.5, 2, 5) if "var" in name else rng.normal(size=array.shape)
    x = rng.normal(size=(4, channels, 7, 7)).astype(np.float32)
    qmodel = graph.generate(model, x, weights=weights, activations=activations).eval()
    with evaluating(qmodel), recording(qmodel) as seen, no_grad():
        qmodel(Tensor(x))
    ((real, _),) = seen[NEXT]
    slot = next(slot.module for slot in qmodel.quantizers() if slot.name == NEXT)
    if data is not None and "running_scale" in slot._buffers and not activations.startswith("F"):
        edge = abs(real.ravel()[data.draw(st.integers(0, real.size - 1))])
        towards = data.draw(st.sampled_from([np.float32(0), edge, np.float32(np.inf)]))
        slot._buffers["running_scale"][...] = np.nextafter(edge, towards)
    found = deploy.agreement(qmodel, deploy.pack(qmodel), x)
    assert found.equal, str(found)
    assert found.outputs == 0


def test_float32_sums_would_differ_there():
    """With sums of exactly 0 on an edge, the ordinary operations come to other codes: the law above is not empty."""
    differing = 0
    for seed in range(3):
        model = Layers(2, False, False, np.random.default_rng(seed))
        x = np.random.default_rng(seed).normal(size=(4, 2, 7, 7)).astype(np.float32)
        qmodel = graph.generate(model, x, weights="C-3", activations="C-3").eval()
        with recording(qmodel) as seen, Parts(), no_grad():
            qmodel(Tensor(x))
        ((_, ordinary),) = seen[NEXT]
        differing += int((ordinary != deploy.pack(qmodel).trace(x)[NEXT]).sum())
    assert differing > 0
