"""Options, arguments and the trees of inputs and outputs as JSON, and back: what JSON has no word for gets a name.

None, True, 3, 0.5, "text"    themselves
(1, 2)                        [1, 2]
[1, 2]                        {"list": [1, 2]}
{"a": 1}                      {"dict": {"a": 1}}
Port("conv1", 0)              {"port": ["conv1", 0]}          output 0 of the layer conv1
Input(0)                      {"input": 0}                    input number 0 of the model
slice(0, 2, None)             {"slice": [0, 2, null]}
...                           {"ellipsis": true}
Length(6, ((0, 2, 3),))       {"length": [6, [[0, 2, 3]]]}    a length that follows the inputs' (`graph.lengths`)
Fill((2, 3), 0.0, float32)    {"fill": [[2, 3], 0.0]}         an array of one value
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyqnn.files import FileError
from tinyqnn.graph.lengths import Fill, Length
from tinyqnn.graph.vertices import Input, Port, map_tree

DEEPEST, LARGEST = 16, 2**31


def to_json(value: Any) -> Any:
    """One value in words that JSON has.

    >>> to_json((1, slice(0, None), Port("fc")))
    [1, {'slice': [0, None, None]}, {'port': ['fc', 0]}]
    """
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if isinstance(value, list):
        return {"list": [to_json(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": {key: to_json(item) for key, item in value.items()}}
    if isinstance(value, Port):
        return {"port": [value.vertex, value.output]}
    if isinstance(value, Input):
        return {"input": value.number}
    if isinstance(value, slice):
        return {"slice": [to_json(part) for part in (value.start, value.stop, value.step)]}
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, Length):
        return {"length": [value.base, [list(term) for term in value.terms]]}
    if isinstance(value, Fill):
        return {"fill": [[to_json(n) for n in value.shape], float(value.value)]}
    raise ValueError(f"{value!r} cannot be written to the file of a packed model")


def from_json(value: Any, depth: int = 0) -> Any:
    """The value again; FileError for what `to_json` does not write.

    >>> from_json([1, {"slice": [0, None, None]}, {"port": ["fc", 0]}])
    (1, slice(0, None, None), Port(vertex='fc', output=0))
    """
    if depth > DEEPEST:
        raise FileError(f"a value is nested more than {DEEPEST} deep")
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return _whole(value, -LARGEST)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise FileError(f"{value} is no number for an option")
        return value
    if isinstance(value, list):
        return tuple(from_json(item, depth + 1) for item in value)
    if not isinstance(value, dict) or len(value) != 1:
        raise FileError(f"a value is {_short(value)}, which names no kind of value")
    ((key, inner),) = value.items()
    if key == "list" and isinstance(inner, list):
        return [from_json(item, depth + 1) for item in inner]
    if key == "dict" and isinstance(inner, dict):
        return {name: from_json(item, depth + 1) for name, item in inner.items()}
    if key == "port" and isinstance(inner, list) and len(inner) == 2 and isinstance(inner[0], str):
        return Port(inner[0], _whole(inner[1]))
    if key == "input":
        return Input(_whole(inner))
    if key == "slice" and isinstance(inner, list) and len(inner) == 3:
        return slice(*(from_json(part, depth + 1) for part in inner))
    if key == "ellipsis" and inner is True:
        return Ellipsis
    if key == "length" and isinstance(inner, list) and len(inner) == 2 and isinstance(inner[1], list):
        terms = []
        for term in inner[1]:
            if not isinstance(term, list) or len(term) != 3:
                raise FileError(f"a length has the term {_short(term)}, expected [axis, length, slope]")
            terms.append((_whole(term[0]), _whole(term[1]), _whole(term[2], -LARGEST)))
        base = _whole(inner[0], -LARGEST)
        if base == 0 and len(terms) > 1:
            raise FileError("a length follows several lengths from 0")
        return Length(base, tuple(terms))
    if key == "fill" and isinstance(inner, list) and len(inner) == 2 and isinstance(inner[0], list):
        shape = tuple(from_json(n, depth + 1) for n in inner[0])
        good = all(isinstance(n, Length) or (type(n) is int and n >= 0) for n in shape)
        if good and type(inner[1]) in (int, float) and math.isfinite(inner[1]):
            return Fill(shape, inner[1], np.dtype(np.float32))
    raise FileError(f"a value is {_short(value)}, which names no kind of value")


def leaves(tree: Any) -> list[Any]:
    """What nested tuples, lists and dictionaries hold, in order.

    >>> leaves((1, [2, {"a": 3}]))
    [1, 2, 3]
    """
    found: list[Any] = []
    map_tree(tree, lambda leaf, _: found.append(leaf))
    return found


def _whole(value: Any, lowest: int = 0) -> int:
    if type(value) is not int or not lowest <= value <= LARGEST:
        raise FileError(f"expected a whole number from {lowest} to {LARGEST}, got {_short(value)}")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
