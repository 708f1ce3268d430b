"""The file of a packed model: small to the byte, the same for ever, and nothing but itself is accepted."""

from __future__ import annotations

import copy
import ctypes
import importlib.util
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tinyqnn import deploy, files, graph, nn, quant
from tinyqnn.deploy import format as page
from tinyqnn.deploy.values import leaves
from tinyqnn.files import FileError
from tinyqnn.files.arrays import _checksum
from tinyqnn.tensor import Tensor

GOLDEN = Path(__file__).parent / "golden"


class Small(nn.Module):
    """Something of everything that the file has words for."""

    def __init__(self, rng):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 3, 3, padding=1, rng=rng), nn.BatchNorm2d(3)
        self.depthwise, self.fc = nn.Conv2d(3, 3, 3, groups=3, rng=rng), nn.Linear(12, 4, rng=rng)
        self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(2)

    def forward(self, x):
        x = self.pool(self.relu(self.bn(self.conv(x))))
        y = self.depthwise(x)
        return self.fc((y + x[:, :, 1:-1, 1:-1]).reshape(x.shape[0], 12)) * 0.5


class Words(nn.Module):
    def __init__(self, rng):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(7, 3, rng=rng), nn.LSTM(3, 2, rng=rng)

    def forward(self, tokens, state=None):
        return self.lstm(self.embedding(tokens), state)


def small(rng, weights="C-3", activations="Z-2"):
    x = rng.normal(size=(2, 1, 8, 8)).astype(np.float32)
    qmodel = graph.generate(Small(rng), x, weights=weights, activations=activations).eval()
    return deploy.pack(qmodel, x), x


def words(rng):
    tokens = rng.integers(0, 7, (3, 2))
    schemes = {"embedding": "P-3", "lstm": quant.ClipQ(2, axis=0)}
    qmodel = graph.generate(Words(rng), tokens, weights=schemes, activations="U-3", batch_axis=1).eval()
    return deploy.pack(qmodel), tokens


@pytest.mark.parametrize("make", [small, words])
def test_what_is_loaded_answers_the_same(rng, tmp_path, make):
    packed, x = make(rng)
    packed.save(tmp_path / "m.npz")
    loaded = deploy.load(tmp_path / "m.npz")
    for a, b in zip(leaves(packed(x)), leaves(loaded(x)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert {k: v.tobytes() for k, v in loaded.trace(x).items()} == {k: v.tobytes() for k, v in packed.trace(x).items()}
    loaded.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "m.npz").read_bytes()


@pytest.mark.parametrize("weights", ["B-1", "T-2", "C-3", "P-4", "R-3", "Z-5", "F-8", None])
def test_the_file_is_as_long_as_said_to_the_byte(rng, tmp_path, weights):
    packed, _ = small(rng, weights)
    packed.save(tmp_path / "m.npz")
    assert packed.nbytes == sum(packed.sizes.values()) == os.path.getsize(tmp_path / "m.npz")
    bits = 0 if weights is None else quant.scheme(weights).bits
    counts = [27, 27, 48]
    assert packed.sizes["codes"] == sum(math.ceil(n * bits / 8) for n in counts)
    parameters = {None: 0, "T-2": 2, "R-3": 3, "Z-5": 2}.get(weights, 1)
    assert packed.sizes["scales"] == 4 * 3 * (parameters + 2)  # and scale and low of Z-2
    norm = 9 if weights is None else 6  # (mean, scale, shift), or folded
    bias = 3 if weights is None else 0
    assert packed.sizes["floats"] == 4 * (norm + bias + 3 + 4 + (sum(counts) if weights is None else 0))


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [1, 7, 8, 64, 129])
def test_bits_come_back(rng, bits, count):
    places = rng.integers(0, 2**bits, count)
    octets = page.pack_bits(places, bits)
    assert octets.size == math.ceil(count * bits / 8)
    np.testing.assert_array_equal(page.unpack_bits(octets, count, bits), places)


@pytest.mark.parametrize("name", ["small", "words"])
def test_files_of_version_1_are_read_for_ever(name):
    """Written once; a change that reads them otherwise, or not at all, is a new version."""
    packed = deploy.load(GOLDEN / f"{name}.npz")
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    x = np.array(expected["input"], np.float32 if name == "small" else np.int64)
    outputs = leaves(packed(x))
    for got, wanted in zip(outputs, expected["outputs"], strict=True):
        np.testing.assert_allclose(got, np.array(wanted, np.float32), rtol=1e-5, atol=1e-6)
    assert {vertex: codes.tolist() for vertex, codes in packed.trace(x).items()} == expected["codes"]
    assert packed.nbytes == os.path.getsize(GOLDEN / f"{name}.npz")


@pytest.mark.parametrize("name", ["small", "words"])
def test_golden_files_are_written_as_they_were(tmp_path, name):
    deploy.load(GOLDEN / f"{name}.npz").save(tmp_path / "m.npz")
    assert (tmp_path / "m.npz").read_bytes() == (GOLDEN / f"{name}.npz").read_bytes()


def test_nothing_of_the_users_is_overwritten(rng, tmp_path):
    packed, _ = small(rng)
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(FileExistsError):
        packed.save(tmp_path / "notes")
    packed.save(tmp_path / "m.npz")
    packed.save(tmp_path / "m.npz")
    with pytest.raises(FileExistsError):
        packed.save(tmp_path / "m.npz", overwrite=False)


def rewritten(path, change):
    """The file with its header changed by `change(content, arrays)` and the right checksum."""
    arrays, content = files.load_arrays(path, page.KIND)
    arrays = {name: array.copy() for name, array in arrays.items()}
    content = copy.deepcopy(content)
    change(content, arrays)
    bad = path.parent / "bad.npz"
    files.save_arrays(bad, arrays, content, page.KIND, True, indent=None)
    return bad


def refused(path, match):
    with pytest.raises(FileError, match=match) as error:
        deploy.load(path)
    assert str(path) in str(error.value)
    assert str(error.value).count(str(path)) == 1


FAULTS = {
    "another version": (lambda c, a: c.update(packed=2), "version 2"),
    "no version": (lambda c, a: c.pop("packed"), "no 'packed'"),
    "version as text": (lambda c, a: c.update(packed="1"), "expected a whole number"),
    "a field more": (lambda c, a: c.update(extra=1), "'extra', which this version does not know"),
    "a field less": (lambda c, a: c.pop("outputs"), "no 'outputs'"),
    "layers no list": (lambda c, a: c.update(layers={}), "expected a list"),
    "a field more in a layer": (lambda c, a: c["layers"][1].update(note=""), r"layers\[1\] has a field 'note'"),
    "a field less in a layer": (lambda c, a: c["layers"][1].pop("op"), "no 'op'"),
    "an unknown operation": (lambda c, a: c["layers"][3].update(op="explode"), "'explode', which this version"),
    "an unknown scheme": (lambda c, a: c["layers"][1]["coded"]["x"].update(scheme="C-9"), "unknown scheme"),
    "a scheme that is a number": (lambda c, a: c["layers"][1]["coded"]["x"].update(scheme=3), "expected text"),
    "the scheme of an unknown axis": (lambda c, a: c["layers"][1]["coded"]["x"].update(axis=-1), "expected a whole"),
    "an array more": (lambda c, a: a.update(more=np.zeros(3)), "expected codes and numbers"),
    "an array less": (lambda c, a: a.pop("codes"), "expected codes and numbers"),
    "codes of another type": (lambda c, a: a.update(codes=a["codes"].astype(np.int16)), "codes is int16"),
    "numbers too many": (lambda c, a: a.update(numbers=np.append(a["numbers"], np.float32(1))), "its header knows of"),
    "numbers too few": (lambda c, a: a.update(numbers=a["numbers"][:-1]), "the file has"),
    "numbers in two axes": (lambda c, a: a.update(numbers=a["numbers"][None]), "expected a row"),
    "a NaN": (lambda c, a: a["numbers"].__setitem__(3, np.nan), "NaN"),
    "a negative scale": (lambda c, a: a["numbers"].__setitem__(0, -1), "not negative"),
    "bits behind the last code": (lambda c, a: a["codes"].__setitem__(10, 255), "bits set behind"),
    "a shape of text": (lambda c, a: c["layers"][2]["coded"]["weight"]["codes"].update(shape="3"), "expected a list"),
    "a shape below 0": (
        lambda c, a: c["layers"][2]["coded"]["weight"]["codes"].update(shape=[3, 1, -3, 3]),
        "expected a whole number",
    ),
    "a huge shape": (
        lambda c, a: c["layers"][2]["coded"]["weight"]["codes"].update(shape=[2**31, 2**31, 3, 3]),
        "the file has",
    ),
    "arrays that overlap": (lambda c, a: c["layers"][2]["coded"]["weight"]["codes"].update(at=3), "begins at 3"),
    "a weight of another shape": (
        lambda c, a: c["layers"][2]["coded"]["weight"]["codes"].update(shape=[27]),
        "expected 4 axes",
    ),
    "a stride of 0": (lambda c, a: c["layers"][2]["options"].update(stride=[0, 1]), "stride"),
    "an option more": (lambda c, a: c["layers"][2]["options"].update(mode="fast"), "'mode' in its options"),
    "a source behind": (
        lambda c, a: c["layers"][2]["arguments"].__setitem__(0, {"port": ["fc", 0]}),
        "no layer before",
    ),
    "an output that is not there": (lambda c, a: c.update(outputs={"port": ["fc", 3]}), "output 3 of 'fc'"),
    "codes as output": (lambda c, a: c.update(outputs={"port": ["conv.quant.input", 0]}), "is codes"),
    "two layers of one name": (lambda c, a: c["layers"][2].update(name=c["layers"][1]["name"]), "two layers"),
    "an input more": (lambda c, a: c.update(inputs=[{"input": 0}, {"input": 1}]), "inputs"),
    "a value of no kind": (lambda c, a: c["layers"][2]["arguments"].__setitem__(0, {"eval": "1"}), "names no kind"),
    "nested too deep": (lambda c, a: c.update(inputs=json.loads("[" * 100 + "]" * 100)), "nested"),
    "an axis that is neither free nor fixed": (lambda c, a: c["lengths"]["fixed"].pop(), "every axis"),
    "a free length of no axis": (lambda c, a: c["lengths"]["free"].append([]), "every axis"),
    "a length of nothing": (
        lambda c, a: next(x for x in c["layers"] if x["op"] == "reshape")["options"].update(
            shape=[{"length": [2, [[7, 2, 1]]]}, 12]
        ),
        "no input has",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_error(rng, tmp_path, fault):
    packed, _ = small(rng)
    packed.save(tmp_path / "m.npz")
    change, match = FAULTS[fault]
    refused(rewritten(tmp_path / "m.npz", change), match)


def test_files_of_other_kinds_are_told_apart(rng, tmp_path):
    path = tmp_path / "m.npz"
    with pytest.raises(FileNotFoundError):
        deploy.load(path)
    np.savez(path, a=np.zeros(3))
    refused(path, "not one that tinyqnn wrote")
    files.save_arrays(path, {"a": np.zeros(3)}, {}, "checkpoint", True)
    refused(path, "is a tinyqnn checkpoint, expected a tinyqnn packed model")
    path.write_bytes(b"")
    refused(path, "not a tinyqnn packed model")
    with pytest.raises(FileError, match="a folder"):
        deploy.load(tmp_path)
    packed, _ = small(rng)
    packed.save(path, True)
    with pytest.raises(FileError, match="max_bytes"):
        deploy.load(path, max_bytes=1000)


def test_a_file_that_unpacks_to_more_than_it_says_is_refused(rng, tmp_path):
    """A zip bomb: 70 MB of zeros in a few kilobytes."""
    packed, _ = small(rng)
    packed.save(tmp_path / "m.npz")
    arrays, content = files.load_arrays(tmp_path / "m.npz", page.KIND)
    arrays["codes"] = np.zeros(70 << 20, np.uint8)
    head = {"format": "tinyqnn packed model", "version": 1, "sha256": _checksum(arrays, content), "content": content}
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps(head))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array)
    refused(tmp_path / "bomb.npz", "absurd")


def mutated(data: bytes, rng) -> bytes:
    """The bytes with one thing wrong: cut, bits turned, a stretch lost, doubled, moved or overwritten."""
    found = bytearray(data)
    i, j = sorted(int(k) for k in rng.integers(0, len(data), 2))
    kind = int(rng.integers(7))
    if kind == 0:
        return bytes(found[:i])
    if kind == 1:
        for _ in range(int(rng.integers(1, 9))):
            found[int(rng.integers(len(found)))] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        found[i] = int(rng.integers(256))
    elif kind == 3:
        del found[i : min(j, i + 64)]
    elif kind == 4:
        found[i:i] = found[i : min(j, i + 64)]
    elif kind == 5:
        found[i : i + 4] = rng.bytes(4)
    else:
        found += rng.bytes(int(rng.integers(1, 100)))
    return bytes(found)


def header_mutated(path: Path, rng) -> Path:
    """The file with one field of its header replaced, removed or added, and the right checksum."""

    def change(content, arrays):
        places = []

        def walk(node):
            items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
            for key, value in list(items):
                places.append((node, key))
                walk(value)

        walk(content)
        node, key = places[int(rng.integers(len(places)))]
        junk = [None, True, -1, 0, 1, 3, 2**31, 2**70, 0.5, "", "x", "C-3", [], {}, [0], [1, 2], {"port": ["x", 0]}]
        kind = int(rng.integers(4))
        if kind == 0:
            del node[key]
        elif kind == 1 and isinstance(node, dict):
            node["more"] = junk[int(rng.integers(len(junk)))]
        elif kind == 2 and isinstance(node[key], int):
            node[key] += int(rng.choice([-1, 1]))
        else:
            node[key] = junk[int(rng.integers(len(junk)))]

    return rewritten(path, change)


def fuzz(folder: Path, rng, count: int, kinds=("bytes", "header")) -> dict[str, int]:
    """Load `count` mutated files; what was refused, what was harmless, the longest time, in milliseconds, and message.

    A file may be accepted only if it says what the first one said (bytes), or if it runs or is refused (header).
    """
    found = {"refused": 0, "the same": 0, "another": 0, "slowest": 0, "longest": 0}
    makers = (small, words)
    originals = []
    for number, make in enumerate(makers):
        packed, x = make(np.random.default_rng(number))
        path = folder / f"{number}.npz"
        packed.save(path, True)
        originals.append((path, path.read_bytes(), [a.tobytes() for a in leaves(packed(x))], x))
    for turn in range(count):
        path, data, expected, x = originals[turn % len(makers)]
        if kinds[turn // 2 % len(kinds)] == "bytes":
            bad = folder / "mutated.npz"
            bad.write_bytes(mutated(data, rng))
            same = True
        else:
            bad, same = header_mutated(path, rng), False
        start = time.perf_counter()
        try:
            packed = deploy.load(bad)
        except FileError as error:
            found["refused"] += 1
            found["longest"] = max(found["longest"], len(str(error)))
            continue
        finally:
            found["slowest"] = max(found["slowest"], int(1000 * (time.perf_counter() - start)))
        try:
            answer = [a.tobytes() for a in leaves(packed(x)) if isinstance(a, np.ndarray)]
        except (ValueError, TypeError, IndexError, OverflowError):
            found["refused"] += 1
            continue
        assert answer == expected or not same, "a damaged file was believed"
        found["the same" if answer == expected else "another"] += 1
    return found


def test_mutated_files_are_refused_or_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)
    found = fuzz(tmp_path, np.random.default_rng(0), 300)
    assert found["refused"] > 200
    assert found["longest"] < 1000


def test_the_fuzzer_can_find_something(tmp_path, monkeypatch):
    """Without the checksum, a turned bit in a code is believed."""
    monkeypatch.setattr("tinyqnn.files.arrays._checksum", lambda *_: "0" * 64)
    monkeypatch.setattr(zipfile.ZipExtFile, "_update_crc", lambda *_: None)
    with pytest.raises(AssertionError, match="was believed"):
        fuzz(tmp_path, np.random.default_rng(1), 2000, ("bytes",))


def test_a_reader_needs_nothing_of_ours(rng, tmp_path):
    """The page says how to read a weight: here it is done with zipfile, json and NumPy alone."""
    packed, _ = small(rng, "C-3")
    packed.save(tmp_path / "m.npz")
    with zipfile.ZipFile(tmp_path / "m.npz") as archive:
        head = json.loads(archive.read("header.json"))
        octets = np.load(io.BytesIO(archive.read("codes.npy")))
        numbers = np.load(io.BytesIO(archive.read("numbers.npy")))
    layer = next(layer for layer in head["content"]["layers"] if layer["name"] == "fc")
    entry = layer["coded"]["weight"]
    count, bits = math.prod(entry["codes"]["shape"]), int(entry["scheme"].split("-")[1])
    first = 8 * entry["codes"]["at"]
    bit = lambda i: octets[i // 8] >> (i % 8) & 1  # noqa: E731
    places = [sum(int(bit(first + plane * count + i)) << plane for plane in range(bits)) for i in range(count)]
    scale = numbers[entry["params"]["scale"]["at"]]
    values = scale * (np.array(places) - 4 + np.float32(0.5))
    weight = next(layer for layer in packed.layers if layer.name == "fc").coded["weight"].values()
    np.testing.assert_array_equal(values.reshape(entry["codes"]["shape"]).astype(np.float32), weight)


def test_loading_compares_with_the_model_it_came_from(rng, tmp_path):
    x = rng.normal(size=(2, 1, 8, 8)).astype(np.float32)
    qmodel = graph.generate(Small(rng), x, weights="P-3", activations="F-3").eval()
    deploy.pack(qmodel).save(tmp_path / "m.npz")
    loaded = deploy.load(tmp_path / "m.npz")
    assert deploy.agreement(qmodel, loaded, x).equal
    np.testing.assert_allclose(loaded(x), qmodel(Tensor(x)).data, atol=1e-5)


def test_the_page_about_the_file_runs_and_prints_what_it_says(monkeypatch, tmp_path):
    """The page has a reader that knows nothing of tinyqnn, and finds the same weights."""
    root = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location("run_file_page", root / "tutorials" / "run.py")
    runner = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, runner)
    spec.loader.exec_module(runner)
    monkeypatch.chdir(tmp_path)
    assert runner.run(root / "tutorials" / "file_format.md") == 2


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_pages_c_finds_every_place(rng, tmp_path):
    page_text = (Path(__file__).resolve().parents[2] / "tutorials" / "file_format.md").read_text()
    function = re.search(r"```c\n(.*?)```", page_text, re.DOTALL)[1]
    (tmp_path / "place.c").write_text("#include <stddef.h>\n" + function)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", "place.so", "place.c"], cwd=tmp_path, check=True)
    place = ctypes.CDLL(str(tmp_path / "place.so")).place
    place.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_size_t]
    for bits in range(1, 9):
        places = rng.integers(0, 2**bits, 77)
        data = b"before" + page.pack_bits(places, bits).tobytes()
        assert [place(data, 6, 77, bits, i) for i in range(77)] == places.tolist()
