"""An .npz is read as it was written, or refused."""

from __future__ import annotations

import io
import json
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinyqnn.files import FileError, load_arrays, read_header, save_arrays
from tinyqnn.files.tree import flatten, unflatten

EXAMPLE = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2).transpose(0, 3, 1, 2),
    "steps": np.array(7),
    "codes": np.array([[-1, 0, 1]], np.int8),
    "mask": np.array([True, False]),
    "none": np.zeros((0, 4)),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
}


def save_example(path):
    save_arrays(path, EXAMPLE, {"epoch": 3, "rates": [0.1, 1e-17], "name": "β"})


def equal(a, b):
    return list(a) == list(b) and all(
        a[n].dtype == b[n].dtype and a[n].shape == b[n].shape and a[n].tobytes() == b[n].tobytes() for n in a
    )


dtypes = st.one_of(hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes())
arrays = dtypes.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4)))


@given(
    st.dictionaries(st.from_regex(r"\A[a-z][a-z0-9_./]{0,20}\Z").filter(lambda n: ".." not in n), arrays, max_size=4)
)
def test_what_was_saved_is_loaded_bit_for_bit(tmp_path_factory, given_arrays):
    path = tmp_path_factory.getbasetemp() / "round.npz"
    save_arrays(path, given_arrays, overwrite=True)
    loaded, header = load_arrays(path)
    native = {name: a.astype(a.dtype.newbyteorder("=")) for name, a in given_arrays.items()}
    assert equal(loaded, native)
    assert header == {}


def test_header_and_arrays_come_back_and_may_be_written_to(tmp_path):
    save_example(tmp_path / "a.npz")
    loaded, header = load_arrays(tmp_path / "a.npz")
    assert equal(loaded, EXAMPLE)
    assert header == {"epoch": 3, "rates": [0.1, 1e-17], "name": "β"}
    assert all(a.flags.writeable and a.flags.aligned for a in loaded.values())
    assert read_header(tmp_path / "a.npz")["format"] == "tinyqnn arrays"


def test_numpy_reads_what_we_write_and_we_read_what_numpy_writes(tmp_path):
    save_example(tmp_path / "ours.npz")
    with np.load(tmp_path / "ours.npz", allow_pickle=False) as theirs:
        assert all(np.array_equal(theirs[name], array) for name, array in EXAMPLE.items())
        assert json.loads(theirs["header.json"])["content"]["epoch"] == 3
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "theirs.npz", **EXAMPLE)
        assert equal(load_arrays(tmp_path / "theirs.npz", kind=None)[0], EXAMPLE)


def test_equal_contents_make_equal_bytes(tmp_path):
    save_example(tmp_path / "a.npz")
    save_example(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_the_format_is_frozen(tmp_path):
    """The bytes as version 1 wrote them: a change of the format needs a new version and a reader for this one."""
    header = (
        b'{\n "format": "tinyqnn golden",\n "version": 1,\n'
        b' "sha256": "bb3a49109dfbea0fd8760d936f8337fe5af65c274331f53651d6b419a544f158",\n'
        b' "content": {\n  "epoch": 1\n }\n}'
    )
    array = io.BytesIO()
    np.save(array, np.array([1, 2], np.uint8))
    with zipfile.ZipFile(tmp_path / "golden.npz", "w") as archive:
        archive.writestr(zipfile.ZipInfo("header.json"), header)
        archive.writestr(zipfile.ZipInfo("w.npy"), array.getvalue())
    loaded, content = load_arrays(tmp_path / "golden.npz", kind="golden")
    assert (loaded["w"].tolist(), content) == ([1, 2], {"epoch": 1})
    save_arrays(tmp_path / "now.npz", {"w": np.array([1, 2], np.uint8)}, {"epoch": 1}, kind="golden")
    with zipfile.ZipFile(tmp_path / "now.npz") as archive:
        assert archive.namelist() == ["header.json", "w.npy"]
        assert archive.read("header.json") == header


@pytest.mark.parametrize("parts", [50, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_file_cut_short_anywhere_is_refused(tmp_path, parts):
    save_example(tmp_path / "a.npz")
    data = (tmp_path / "a.npz").read_bytes()
    for part in range(parts):
        (tmp_path / "cut.npz").write_bytes(data[: len(data) * part // parts])
        for kind in ("arrays", None):
            with pytest.raises(FileError, match="cut"):
                load_arrays(tmp_path / "cut.npz", kind)


@pytest.mark.parametrize("flips", [300, pytest.param(4_000, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_found_or_does_not_matter(tmp_path, rng, flips):
    save_example(tmp_path / "a.npz")
    data = (tmp_path / "a.npz").read_bytes()
    refused = 0
    for bit in rng.integers(0, 8 * len(data), flips).tolist():
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "flipped.npz").write_bytes(flipped)
        try:
            loaded, header = load_arrays(tmp_path / "flipped.npz")
        except FileError as error:
            refused += "flipped.npz" in str(error)
        else:  # in a date, or in what zip says of the system it was made on
            assert equal(loaded, EXAMPLE)
            assert header["epoch"] == 3
    assert refused > flips // 2


def archive_with(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_dot_", "."), content)


def npy(dtype="<f4", shape=(2,), data=b"\0" * 8):
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def test_an_absurd_shape_is_refused_before_memory_is_taken(tmp_path):
    for shape in [(1 << 40,), (1 << 31, 1 << 31, 1 << 31), (3,), (1,)]:
        archive_with(tmp_path / "a.npz", w_dot_npy=npy(shape=shape))
        with pytest.raises(FileError, match=r"w.npy claims shape .* and holds 8; it is damaged"):
            load_arrays(tmp_path / "a.npz", kind=None)


@pytest.mark.parametrize("shape", [(-2,), (2.0,), "x"])
def test_a_shape_that_is_no_shape_is_refused(tmp_path, shape):
    archive_with(tmp_path / "a.npz", w_dot_npy=npy(shape=shape))
    with pytest.raises(FileError, match=r"a\.npz"):
        load_arrays(tmp_path / "a.npz", kind=None)


def test_a_bomb_is_refused_before_it_goes_off(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("w.npy", "w") as file:
        file.write(npy(shape=(70 << 18,), data=b""))
        for _ in range(70):
            file.write(bytes(1 << 20))
    assert (tmp_path / "a.npz").stat().st_size < 1 << 20
    with pytest.raises(FileError, match=r"claims to unpack to 73,\d+,\d+, which is absurd"):
        load_arrays(tmp_path / "a.npz", kind=None)


def test_a_member_that_lies_about_its_size_is_refused(tmp_path):
    archive_with(tmp_path / "a.npz", w_dot_npy=npy())
    data = bytearray((tmp_path / "a.npz").read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    for size in (0, 10, 1000, 1 << 31, (1 << 32) - 2):
        data[directory + 24 : directory + 28] = struct.pack("<I", size)
        (tmp_path / "b.npz").write_bytes(data)
        with pytest.raises(FileError, match=r"b\.npz"):
            load_arrays(tmp_path / "b.npz", kind=None)


def test_objects_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", w=np.array([{"a": 1}], dtype=object))
    with pytest.raises(FileError, match="array of object; only numbers and booleans"):
        load_arrays(tmp_path / "a.npz", kind=None)
    with pytest.raises(TypeError, match="array 'w' is of object"):
        save_arrays(tmp_path / "b.npz", {"w": np.array([None])})
    assert not (tmp_path / "b.npz").exists()


def test_what_is_in_the_file_must_be_what_was_asked_for(tmp_path):
    save_arrays(tmp_path / "a.npz", {}, kind="packed model")
    with pytest.raises(FileError, match="is a tinyqnn packed model, expected a tinyqnn checkpoint"):
        load_arrays(tmp_path / "a.npz", kind="checkpoint")
    np.savez(tmp_path / "b.npz", w=np.zeros(2))
    with pytest.raises(FileError, match=r"not one that tinyqnn wrote: it has no header\.json"):
        load_arrays(tmp_path / "b.npz", kind="checkpoint")
    (tmp_path / "c.npz").write_bytes(b"\x93NUMPY something else")
    with pytest.raises(FileError, match=r"c\.npz is not a tinyqnn checkpoint, or it is cut short"):
        load_arrays(tmp_path / "c.npz", kind="checkpoint")
    head = {"format": "tinyqnn checkpoint", "version": 99, "sha256": "", "content": {}}
    archive_with(tmp_path / "d.npz", header_dot_json=json.dumps(head))
    with pytest.raises(FileError, match="has version 99 of the format, this tinyqnn reads 1; update tinyqnn"):
        load_arrays(tmp_path / "d.npz", kind="checkpoint")


def test_an_array_too_many_or_too_few_is_refused(tmp_path):
    save_example(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("more.npy", npy())
    with pytest.raises(FileError, match="do not match its checksum"):
        load_arrays(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz") as whole, zipfile.ZipFile(tmp_path / "b.npz", "w") as part:
        for name in whole.namelist()[:3]:
            part.writestr(name, whole.read(name))
    with pytest.raises(FileError, match="do not match its checksum"):
        load_arrays(tmp_path / "b.npz")


def test_a_file_larger_than_is_believed_is_not_opened(tmp_path):
    save_example(tmp_path / "a.npz")
    with pytest.raises(FileError, match=r"more than the 100 believed of a tinyqnn arrays; .* pass max_bytes="):
        load_arrays(tmp_path / "a.npz", max_bytes=100)


def test_a_header_with_what_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        save_arrays(tmp_path / "a.npz", {}, {"loss": float("nan")})
    with pytest.raises(ValueError, match="no name for an array"):
        save_arrays(tmp_path / "a.npz", {"../a": np.zeros(1)})
    assert list(tmp_path.iterdir()) == []


trees = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), arrays),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    ),
    max_leaves=8,
)


def same(a, b):
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and equal({"": a}, {"": b})
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b and type(a) is type(b)


@given(trees)
def test_a_tree_taken_apart_and_put_together_is_the_same(tree):
    taken, skeleton = flatten(tree)
    assert same(unflatten(taken, json.loads(json.dumps(skeleton))), tree)


def test_a_tree_with_something_else_in_it_is_refused():
    with pytest.raises(TypeError, match="a/1: a set cannot be saved"):
        flatten({"a": [1, {2}]})
