"""A policy as text: JSON with a line a vertex, which a person can read and edit, and which is believed after a look.

{
  "format": "tinyqnn policy", "version": 1, "floats": 914,
  "vertices": {
    "conv1.quant.weight": {"scheme": "P-3", "role": "weights", "feeds": "conv1", "source": …, "elements": 150},
    …
"""

from __future__ import annotations

import json
from typing import Any

FORMAT, VERSION = "tinyqnn policy", 1
FIELDS: dict[str, type] = {"scheme": str, "role": str, "feeds": str, "source": str, "elements": int}


def write(vertices: dict[str, dict[str, Any]], floats: int) -> str:
    """The text of a policy."""
    names = {name: json.dumps(name, ensure_ascii=False) + ":" for name in vertices}
    width = max(map(len, names.values()), default=0)
    rows = [f"    {names[name]:<{width}} {json.dumps(row, ensure_ascii=False)}" for name, row in vertices.items()]
    head = f'{{\n  "format": "{FORMAT}", "version": {VERSION}, "floats": {floats},\n  "vertices": {{\n'
    return head + ",\n".join(rows) + "\n  }\n}\n"


def read(text: str) -> tuple[dict[str, dict[str, Any]], int]:
    """(vertices, floats) of such a text. Raises ValueError naming the first thing that is wrong."""
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise ValueError(f"no policy: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ValueError("no policy: brackets within brackets without end") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f'no policy: it does not begin with "format": "{FORMAT}"')
    if found.get("version") != VERSION:
        raise ValueError(f"a policy of version {found.get('version')!r}; this tinyqnn reads version {VERSION}")
    _fields("the policy", found, {"format": str, "version": int, "floats": int, "vertices": dict})
    for name, row in found["vertices"].items():
        if not isinstance(row, dict):
            raise ValueError(f"{name}: a vertex is an object with {', '.join(FIELDS)}, got {row!r}")
        _fields(name, row, FIELDS)
        if row["role"] not in ("weights", "activations"):
            raise ValueError(f"{name}: role is weights or activations, got {row['role']!r}")
        if row["elements"] < 1:
            raise ValueError(f"{name}: elements is 1 or more, got {row['elements']}")
    if found["floats"] < 0:
        raise ValueError(f"floats is 0 or more, got {found['floats']}")
    return found["vertices"], found["floats"]


def _fields(where: str, row: dict[str, Any], fields: dict[str, type]) -> None:
    """Exactly these fields, of these types?"""
    for name in row:
        if name not in fields:
            raise ValueError(f"{where}: unknown field {name!r}; there are {', '.join(fields)}")
    for name, kind in fields.items():
        if name not in row:
            raise ValueError(f"{where}: the field {name!r} is missing")
        if type(row[name]) is not kind:
            words = {str: "text", int: "a whole number", dict: "an object"}[kind]
            raise ValueError(f"{where}: {name} is {words}, got {row[name]!r}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON keeps the last of two equal names; here that is a slip of the editor."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} stands there twice")
        found[name] = value
    return found
