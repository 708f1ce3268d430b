"""Weights come from PyTorch as .npz or .safetensors, and from nothing that could run a program."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinyqnn import nn
from tinyqnn.files import FileError, load_safetensors, load_state, save_safetensors, save_state


def raw(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


kinds = st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.int32, np.int64, np.uint8, np.bool_])
arrays = kinds.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4)))


@given(st.dictionaries(st.text(min_size=1, max_size=9).filter(lambda n: n != "__metadata__"), arrays, max_size=4))
def test_safetensors_come_back_bit_for_bit(tmp_path_factory, state):
    path = tmp_path_factory.getbasetemp() / "round.safetensors"
    save_safetensors(path, state, {"format": "pt"}, overwrite=True)
    loaded = load_safetensors(path)
    assert loaded.keys() == state.keys()
    for name, array in state.items():
        assert (loaded[name].dtype, loaded[name].shape) == (array.dtype, array.shape)
        assert loaded[name].tobytes() == array.tobytes()
        assert loaded[name].flags.aligned
        assert loaded[name].flags.writeable


# What `safetensors.numpy.save({"b": int64 [1, -1], "aa": float32 [[1.5]]})` writes, byte by byte.
OFFICIAL = (
    b"\x78\0\0\0\0\0\0\0"
    b'{"b":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},"aa":{"dtype":"F32","shape":[1,1],"data_offsets":[16,20]}}'
    b"       " + b"\1\0\0\0\0\0\0\0" + b"\xff" * 8 + b"\0\0\xc0\x3f"
)


def test_the_bytes_are_those_of_the_official_writer(tmp_path):
    path = tmp_path / "a.safetensors"
    save_safetensors(path, {"aa": np.array([[1.5]], np.float32), "b": np.array([1, -1])})
    assert path.read_bytes() == OFFICIAL
    path.write_bytes(OFFICIAL)
    loaded = load_safetensors(path)
    assert (loaded["aa"].tolist(), loaded["b"].tolist()) == ([[1.5]], [1, -1])


def test_bfloat16_becomes_float32(tmp_path):
    bits = np.array([0x3FC0, 0xC000, 0x7F80, 0x0000, 0x8000, 0x3F81], "<u2")
    (tmp_path / "a.safetensors").write_bytes(raw({"w": entry("BF16", (6,), (0, 12))}, bits.tobytes()))
    w = load_safetensors(tmp_path / "a.safetensors")["w"]
    assert w.dtype == np.float32
    assert w.tolist() == [1.5, -2.0, np.inf, 0.0, 0.0, 1.0078125]


def test_arrays_that_lie_crookedly_are_read(tmp_path):
    header = {"flag": entry("BOOL", (1,), (0, 1)), "w": entry("F64", (1,), (1, 9)), "__metadata__": {"format": "pt"}}
    (tmp_path / "a.safetensors").write_bytes(raw(header, b"\1" + np.float64(2.5).tobytes()))
    loaded = load_safetensors(tmp_path / "a.safetensors")
    assert (loaded["flag"].tolist(), loaded["w"].tolist()) == ([True], [2.5])
    assert loaded["w"].flags.aligned


HOSTILE = {
    "empty": b"",
    "too short": b"\1\0\0",
    "header longer than the file": (1 << 62).to_bytes(8, "little") + b"{}",
    "header of 100 MB that is not there": (100_000_000).to_bytes(8, "little") + b"{}",
    "no JSON": raw(b"{nonsense}"),
    "not text": raw(b'{"\xff\xfe'),
    "nested without end": raw(b'{"a":' + b"[" * 100_000),
    "a list": raw(b"[]"),
    "a name twice": raw(b'{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"a":{}}', b"1"),
    "no entry": raw({"w": 3}),
    "fields missing": raw({"w": {"dtype": "F32"}}),
    "three offsets": raw({"w": entry(offsets=(0, 4, 8))}, bytes(8)),
    "absurd shape": raw({"w": entry(shape=(1 << 60, 1 << 60))}, bytes(8)),
    "negative shape": raw({"w": entry(shape=(-1, -2))}, bytes(8)),
    "fractional shape": raw({"w": entry(shape=(2.0,))}, bytes(8)),
    "boolean shape": raw({"w": entry("U8", (True,), (0, 1))}, bytes(1)),
    "backwards": raw({"w": entry(offsets=(8, 0))}, bytes(8)),
    "shape and offsets disagree": raw({"w": entry(shape=(3,))}, bytes(8)),
    "overlap": raw({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
    "gap": raw({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)),
    "bytes nobody speaks of": raw({"a": entry()}, bytes(9)),
    "beyond the end": raw({"a": entry(offsets=(0, 8))}, bytes(7)),
    "unknown type": raw({"a": entry("F8_E4M3", (8,))}, bytes(8)),
    "type is no text": raw({"a": entry(["F32"])}, bytes(8)),
    "boolean 2": raw({"a": entry("BOOL", (1,), (0, 1))}, b"\2"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_name(tmp_path, name):
    path = tmp_path / "a.safetensors"
    path.write_bytes(HOSTILE[name])
    for load in (load_safetensors, load_state):
        with pytest.raises(FileError, match=r"a\.safetensors"):
            load(path)


def test_a_safetensors_file_cut_short_anywhere_is_refused(tmp_path, rng):
    path = tmp_path / "a.safetensors"
    save_safetensors(path, {"a": rng.normal(size=(5, 7)), "b": rng.normal(size=40).astype(np.float32)})
    data = path.read_bytes()
    for part in range(50):
        path.write_bytes(data[: len(data) * part // 50])
        with pytest.raises(FileError, match=r"a\.safetensors"):
            load_safetensors(path)


def test_a_flipped_bit_in_a_header_never_escapes_as_another_error(tmp_path, rng):
    path = tmp_path / "a.safetensors"
    for bit in rng.permutation(8 * (len(OFFICIAL) - 20))[:300].tolist():
        flipped = bytearray(OFFICIAL)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            loaded = load_safetensors(path)
        except FileError:
            continue
        # A name, the type within its size, or 1×1 → 1… may have changed: the format has no checksum. The sizes fit.
        assert sum(array.nbytes for array in loaded.values()) in (20, 22)


def make_model():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_state_dict_goes_through_a_file_unchanged(tmp_path, suffix):
    model, other = make_model(), make_model()
    save_state(tmp_path / f"model.{suffix}", model.state_dict())
    other.load_state_dict(load_state(tmp_path / f"model.{suffix}"))
    for name, array in model.state_dict().items():
        assert np.array_equal(other.state_dict()[name], array)


def test_a_state_dict_of_pytorch_loads(tmp_path):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten(), torch.nn.Linear(8, 3)
    )
    np.savez(tmp_path / "model.npz", **{name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    model = make_model()
    model.load_state_dict(load_state(tmp_path / "model.npz"))
    for name, tensor in theirs.state_dict().items():
        assert np.array_equal(model.state_dict()[name], tensor.numpy())


def test_missing_and_unexpected_names_are_both_listed(tmp_path):
    state = make_model().state_dict()
    state["3.weights"] = state.pop("3.weight")
    save_state(tmp_path / "a.npz", state)
    with pytest.raises(ValueError, match=r"missing: 3\.weight\n\s+unexpected: 3\.weights"):
        make_model().load_state_dict(load_state(tmp_path / "a.npz"))


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.npz", "a.safetensors", "a.bin"])
def test_a_pickle_is_refused_with_the_way_out(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps({"weight": [1.0]}, protocol=4))
    with pytest.raises(FileError, match=r"(?s)is a pickle.*torch\.load\(.*numpy\.savez"):
        load_state(tmp_path / name)


def test_a_file_of_torch_save_is_refused_with_the_way_out(tmp_path):
    torch = pytest.importorskip("torch")
    for name in ("model.pt", "model.npz"):
        torch.save({"w": torch.zeros(2)}, tmp_path / name)
        with pytest.raises(FileError, match=r"(?s)pickle.*torch\.load\(.*numpy\.savez"):
            load_state(tmp_path / name)


def test_a_name_that_does_not_say_what_is_inside_is_refused(tmp_path):
    save_state(tmp_path / "a.npz", {"w": np.zeros(2)})
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.npz").read_bytes())
    with pytest.raises(FileError, match=r"named \.safetensors, but holds a \.npz file; rename it"):
        load_state(tmp_path / "b.safetensors")
    (tmp_path / "c.npz").write_bytes(OFFICIAL)
    with pytest.raises(FileError, match=r"named \.npz, but holds a \.safetensors file; rename it"):
        load_state(tmp_path / "c.npz")
    (tmp_path / "d.txt").write_bytes(OFFICIAL)
    with pytest.raises(FileError, match=r"ends in \.npz or \.safetensors"):
        load_state(tmp_path / "d.txt")
    with pytest.raises(ValueError, match=r"ends in \.npz or \.safetensors"):
        save_state(tmp_path / "d.h5", {})


def test_saving_a_type_the_format_lacks_is_refused(tmp_path):
    with pytest.raises(TypeError, match="w: safetensors has no type for complex128"):
        save_safetensors(tmp_path / "a.safetensors", {"w": np.zeros(1, complex)})
    (tmp_path / "mine.safetensors").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        save_state(tmp_path / "mine.safetensors", {"w": np.zeros(1)})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.safetensors"]
