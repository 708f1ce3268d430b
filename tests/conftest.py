"""What all tests share: profiles for generated tests, seeds, and a guard against leaked state."""

from __future__ import annotations

import gc
import os
import signal

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import tinyqnn as tq
from tinyqnn.tensor import _State

if os.environ.get("TINYQNN_TEST_TILES") == "emulated":
    import emulated_tiles

    emulated_tiles.install()

_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("quick", max_examples=25, derandomize=True, **_common)
settings.register_profile("ci", max_examples=200, derandomize=True, print_blob=True, database=None, **_common)
settings.register_profile("intense", max_examples=5000, print_blob=True, **_common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "quick"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell starts its jobs in the background, and we our own
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def few_old_objects():
    """The collector need not look again at what earlier modules left: a million objects, for a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that is the same in every run."""
    return np.random.default_rng(20260101)


@pytest.fixture(autouse=True)
def no_leaks():
    """Every test starts from one seed and leaves global switches as it found them."""
    tq.manual_seed(0)
    settings_before = np.geterr()
    yield
    assert _State.recording, "a test left recording switched off"
    assert _State.observers == (), "a test left an observer behind"
    assert np.geterr() == settings_before, "a test left NumPy's error settings changed"
