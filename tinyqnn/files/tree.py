"""Dictionaries and lists with arrays in them, as arrays by path plus JSON: how nested state gets into a flat file."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray


def flatten(tree: Any, path: str = "") -> tuple[dict[str, Array], Any]:
    """The arrays of a tree by path, and the tree as JSON with {"$array": path} in their places.

    Tuples become {"$tuple": […]}, keys text, NumPy's numbers Python's.

    >>> arrays, skeleton = flatten({"w": np.arange(2), "lr": 0.1})
    >>> arrays["w"].tolist(), skeleton
    ([0, 1], {'w': {'$array': 'w'}, 'lr': 0.1})
    """
    arrays: dict[str, Array] = {}

    def visit(node: Any, path: str) -> Any:
        if isinstance(node, np.ndarray):
            arrays[path] = node
            return {"$array": path}
        if isinstance(node, dict):
            return {str(key): visit(value, f"{path}/{key}" if path else str(key)) for key, value in node.items()}
        if isinstance(node, (list, tuple)):
            items = [visit(value, f"{path}/{index}" if path else str(index)) for index, value in enumerate(node)]
            return {"$tuple": items} if isinstance(node, tuple) else items
        if isinstance(node, np.generic):
            return node.item()
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        raise TypeError(
            f"{path}: a {type(node).__name__} cannot be saved; use arrays, numbers, text, lists, dictionaries"
        )

    return arrays, visit(tree, path)


def unflatten(arrays: dict[str, Array], skeleton: Any) -> Any:
    """The tree that `flatten` took apart. KeyError if an array is missing.

    >>> unflatten(*flatten({"a": (1, np.float32(2)), "b": [np.zeros(1)]}))
    {'a': (1, 2.0), 'b': [array([0.])]}
    """
    if isinstance(skeleton, dict):
        if set(skeleton) == {"$array"}:
            return arrays[skeleton["$array"]]
        if set(skeleton) == {"$tuple"}:
            return tuple(unflatten(arrays, item) for item in skeleton["$tuple"])
        return {key: unflatten(arrays, value) for key, value in skeleton.items()}
    return [unflatten(arrays, item) for item in skeleton] if isinstance(skeleton, list) else skeleton
