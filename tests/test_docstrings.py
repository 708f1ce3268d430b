"""What a docstring shows is true: every `>>>` runs, and every public name has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import types
from types import ModuleType

import numpy as np
import pytest

import tinyqnn


def modules() -> list[str]:
    """The names of all modules; `__main__` would start the program."""
    found = pkgutil.walk_packages(tinyqnn.__path__, "tinyqnn.")
    return ["tinyqnn", *(module.name for module in found if not module.name.endswith("__main__"))]


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.parametrize("name", modules())
def test_what_a_docstring_shows_is_what_happens(name):
    """Examples see their own module's names, and NumPy as np."""
    module = load(name)
    tests = doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs={"np": np})
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    told: list[str] = []
    for test in tests:
        runner.run(test, out=told.append)
    assert runner.failures == 0, "".join(told)


def public() -> list[tuple[str, object]]:
    """(room.name, object) for every function and class that a room offers in `__all__`."""
    found = {}
    for name in modules():
        if name.count(".") > 1:
            continue  # a room's own files are behind its door
        module = load(name)
        room = name.removeprefix("tinyqnn").lstrip(".")
        for public_name in sorted({*getattr(module, "__all__", ())} - {*getattr(module, "_ROOMS", ())}):
            thing = getattr(module, public_name)
            # In Python 3.10 an alias such as dict[str, Array] calls itself a class.
            if not isinstance(thing, types.GenericAlias) and (inspect.isfunction(thing) or inspect.isclass(thing)):
                found[f"{room}.{public_name}".lstrip(".")] = thing
    return list(found.items())


def explained(thing: object) -> bool:
    return bool((getattr(thing, "__doc__", None) or "").strip())


def shown(thing: object) -> bool:
    return ">>>" in (thing.__doc__ or "")


def test_every_public_name_is_explained():
    silent = [name for name, thing in public() if not explained(thing)]
    assert not silent, f"without a docstring: {', '.join(silent)}"


def test_every_public_name_is_shown_at_work():
    """Exceptions are shown by what raises them."""
    things = [
        (name, thing) for name, thing in public() if not (inspect.isclass(thing) and issubclass(thing, Exception))
    ]
    dark = [name for name, thing in things if not shown(thing)]
    assert not dark, f"no >>> in the docstring of {', '.join(dark)}"


def test_every_module_opens_with_a_sentence():
    silent = [name for name in modules() if not explained(load(name))]
    assert not silent, f"without an opening docstring: {', '.join(silent)}"


def test_an_example_that_is_wrong_is_seen():
    module = ModuleType("lies")
    module.__doc__ = ">>> 1 + 1\n3\n"
    (test,) = doctest.DocTestFinder().find(module)
    told: list[str] = []
    assert doctest.DocTestRunner().run(test, out=told.append).failed == 1
    assert "Expected:\n    3\nGot:\n    2" in "".join(told)
