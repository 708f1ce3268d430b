"""The loaders on the real files, where $TINYQNN_DATA has them."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from tinyqnn import data
from tinyqnn.data.idx import read_idx
from tinyqnn.data.lookup import find_file

SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def found(name: str):
    """The set, or a skip that says why."""
    root = os.environ.get("TINYQNN_DATA")
    if not root:
        pytest.skip("$TINYQNN_DATA is not set; point it at a folder with the real data")
    try:
        return data.load(name, root=root)
    except FileNotFoundError as error:
        pytest.skip(f"{name} is not under $TINYQNN_DATA ({root}): {str(error).splitlines()[0]}")


def test_mnist():
    mnist = found("mnist")
    assert mnist.note == ""
    assert mnist.train.x.shape == (60_000, 1, 28, 28)
    assert mnist.test.x.shape == (10_000, 1, 28, 28)
    assert mnist.train.y[:5].tolist() == [5, 0, 4, 1, 9]
    seen = mnist.train.inputs(slice(0, 10_000))
    assert abs(seen.mean()) < 0.01
    assert abs(seen.std() - 1) < 0.01
    for name, digest in SHA256.items():
        path = find_file(Path(mnist.source), name)
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert read_idx(path, ndim=3 if "images" in name else 1).tobytes() == content[16 if "images" in name else 8 :]


def test_cifar10():
    cifar = found("cifar10")
    assert cifar.train.x.shape == (50_000, 3, 32, 32)
    assert np.bincount(cifar.train.y).tolist() == [5_000] * 10
    assert np.bincount(cifar.test.y).tolist() == [1_000] * 10
    mean = cifar.train.x.mean(axis=(0, 2, 3)) / 255
    np.testing.assert_allclose(mean, (0.4914, 0.4822, 0.4465), atol=2e-3)
    assert (cifar.note == "") == bool(np.abs(mean * 255 - (125.30691805, 122.95039414, 113.86538318)).max() <= 1e-4)


def test_ptb():
    ptb = found("ptb")
    assert (len(ptb.train), len(ptb.valid), len(ptb.test)) == (929_589, 73_760, 82_430)
    assert len(ptb.vocabulary) == 10_000
    eos = ptb.vocabulary.index("<eos>")
    assert [int((part == eos).sum()) for part in (ptb.train, ptb.valid, ptb.test)] == [42_068, 3_370, 3_761]
    assert ptb.words(ptb.test[:6]) == "no it was n't black monday"


def test_ag_news():
    news = found("ag_news")
    per_class = [1_600] * 4 if "test.csv alone" in news.note else [30_000] * 4
    assert np.bincount(news.train.y).tolist() == per_class
    assert np.bincount(news.test.y).tolist() == ([300] * 4 if per_class[0] == 1_600 else [1_900] * 4)
    assert news.train.x.shape[1] == 64
    assert news.train.x.max() < len(news.vocabulary) == 10_000
    assert news.vocabulary[:3] == ("<pad>", "<unk>", "the")
