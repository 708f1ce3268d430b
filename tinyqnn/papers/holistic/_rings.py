"""What a network decides over the plane, as a map of 0 and 1, and what quantization did to that map, in two numbers.

Holistic §3 shows maps and says: weight quantization distorts them, activation quantization adds noise to them. To put
that to a test both words need a number. Let m̄ be a map m in which every point takes the majority of the disc of radius
¼ around it (a ring is 1 wide). A boundary that is smooth stays where it was; a flip that stands alone is outvoted.

    noise        the part of the plane where m ≠ m̄: flips that their surroundings do not share
    distortion   the part of the plane where m̄ ≠ m̄ of the float network: what moved as a whole. 1 % of the plane is the
                 same as all boundaries moved by about a hundredth of a ring's width
    length       how long the boundary is, in lengths of the true one: noise makes it longer, distortion hardly

Both parts are given in per cent of the disc of radius 10.5.
"""

from __future__ import annotations

import base64
import functools
import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinyqnn.data import Split, rings
from tinyqnn.nn import Module
from tinyqnn.nn.module import evaluating
from tinyqnn.tensor import Tensor, no_grad

Map = NDArray[np.bool_]
RADIUS = 0.25  # of the disc that votes, in ring widths
SCALE = np.float32(1 / 4.4)  # the network sees the plane with standard deviation 1


class Measured(NamedTuple):
    """What a map is like: per cent of the plane (accuracy, noise, distortion), and true lengths."""

    accuracy: float
    noise: float
    distortion: float
    length: float


def training_points(copies: int = 9) -> Split:
    """The paper's training set, as the networks see it: 2,000 (copies + 1) points."""
    data = rings.load(copies=copies, side=3)
    return Split(data.train.x * SCALE, data.train.y)


def decisions(model: Module, side: int) -> Map:
    """What a model decides on the side × side grid over [−10.5, 10.5]², row by row from the top: (side, side)."""
    points = rings.grid(side) * SCALE
    with evaluating(model), no_grad():
        parts = [model(Tensor(points[i : i + 8192])).data for i in range(0, len(points), 8192)]
    scores = np.concatenate(parts)  # (side², 2)
    return (scores[:, 1] > scores[:, 0]).reshape(side, side)


@functools.cache
def truth(side: int) -> tuple[Map, Map]:
    """The right map, and which of its points count: those within radius 10.5."""
    points = rings.grid(side)
    right = rings.nearest_label(points).astype(bool).reshape(side, side)
    return right, (np.hypot(*points.T) <= rings.EXTENT).reshape(side, side)


def majority(decided: Map, radius: float = RADIUS) -> Map:
    """Every point takes the side of most points in the disc around it; beyond its border the map goes on as it ends.

    >>> alone = np.zeros((41, 41), bool); alone[20, 20] = True
    >>> bool(majority(alone, 1.5).any())
    False
    >>> halves = np.arange(41) < np.full((41, 1), 17)
    >>> bool((majority(halves, 1.5) == halves).all())
    True
    """
    side = len(decided)
    step = 2 * rings.EXTENT / (side - 1)
    reach = int(radius / step + 1e-9)
    framed = np.pad(decided, reach, mode="edge").astype(np.int16)
    votes, voters = np.zeros(decided.shape, np.int16), 0
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            if i * i + j * j <= reach * reach:
                votes += framed[reach + i : reach + i + side, reach + j : reach + j + side]
                voters += 1
    return 2 * votes > voters


def boundary(decided: Map, counted: Map) -> int:
    """How many neighbours, beside and below, differ."""
    beside = (decided[:, 1:] != decided[:, :-1]) & counted[:, 1:] & counted[:, :-1]
    below = (decided[1:] != decided[:-1]) & counted[1:] & counted[:-1]
    return int(beside.sum() + below.sum())


def measure(decided: Map, reference: Map) -> Measured:
    """Hold a map against the right one, and against that of the float network.

    >>> right, _ = truth(211)
    >>> measure(right, right)._replace(noise=0.0)
    Measured(accuracy=100.0, noise=0.0, distortion=0.0, length=1.0)
    """
    right, counted = truth(len(decided))
    smooth = majority(decided)

    def share(where: Map) -> float:
        return float(100 * where[counted].mean())

    return Measured(
        accuracy=share(decided == right),
        noise=share(decided != smooth),
        distortion=share(smooth != majority(reference)),
        length=boundary(decided, counted) / boundary(right, counted),
    )


def packed(decided: Map) -> dict[str, Any]:
    """A map as JSON: rows, and its bits, compressed.

    >>> bool((unpacked(packed(truth(33)[0])) == truth(33)[0]).all())
    True
    """
    bits = zlib.compress(np.packbits(decided).tobytes(), 9)
    return {"rows": len(decided), "bits": base64.b85encode(bits).decode()}


def unpacked(record: dict[str, Any]) -> Map:
    """The map of `packed`; all maps are square."""
    rows = record["rows"]
    bits = np.frombuffer(zlib.decompress(base64.b85decode(record["bits"])), np.uint8)
    return np.unpackbits(bits, count=rows * rows).reshape(rows, rows).astype(bool)
