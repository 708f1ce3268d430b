"""Files are found where people have them; damaged ones are refused by name, with a remedy, and unread."""

from __future__ import annotations

import gzip
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyqnn import data
from tinyqnn.data import ag_news, cifar10, mnist, ptb
from tinyqnn.data.idx import read_idx
from tinyqnn.data.lookup import cache_folder, places


@pytest.fixture(autouse=True)
def nothing_else_is_found(monkeypatch, tmp_path):
    """No test here may find the data sets of whoever runs it."""
    monkeypatch.delenv("TINYQNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def idx(array: np.ndarray) -> bytes:
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, train: int = 5, test: int = 3, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for prefix, n in (("train", train), ("t10k", test)):
        for name, array in (("images-idx3", rng.integers(0, 256, (n, 28, 28))), ("labels-idx1", np.arange(n) % 10)):
            path = folder / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return folder


def write_cifar(folder: Path, n: int = 4) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in cifar10.BATCHES:
        records = rng.integers(0, 256, (n, cifar10.RECORD), dtype=np.uint8)
        records[:, 0] = np.arange(n)
        if folder.name.endswith("-py"):
            (folder / name).write_bytes(python2_pickle(records[:, 0].tolist(), records[:, 1:]))
        else:
            (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


def python2_pickle(labels: list[int], pixels: np.ndarray) -> bytes:
    """A batch as Python 2 pickled it: byte strings, and the array through numpy.core.multiarray."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<I", len(value)) + value

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\nt"
        + text(b"b")
        + b"tR(I1\n(I%d\nI3072\nt" % len(pixels)
        + b"cnumpy\ndtype\n("
        + text(b"u1")
        + b"I0\nI1\ntR(I3\n"
        + text(b"|")
        + b"NNNI-1\nI-1\nI0\ntbI00\n"
        + text(pixels.tobytes())
        + b"tb"
    )
    numbers = b"(l" + b"".join(b"I%d\na" % label for label in labels)
    return b"\x80\x02}(" + text(b"labels") + numbers + text(b"data") + array + b"u."


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("layout", ["mnist", "MNIST/raw", "MNIST", "."])
def test_mnist_is_found_in_every_layout(tmp_path, layout, packed):
    write_mnist(tmp_path / layout, packed=packed)
    found = data.load("mnist", root=tmp_path)
    assert (len(found.train), len(found.test)) == (5, 3)
    assert "differ from the official files" in found.note
    assert Path(found.source) == tmp_path / layout
    assert found.train.x.shape == (5, 1, 28, 28)
    assert found.train.x[0, 0, 0, 0] == np.random.default_rng(0).integers(0, 256, (5, 28, 28))[0, 0, 0]


@pytest.mark.parametrize(
    "layout",
    [
        "cifar10/cifar-10-batches-bin",
        "cifar-10-batches-bin",
        "cifar10",
        ".",
        "cifar-10-batches-py",
        "cifar10/cifar-10-batches-py",
    ],
)
def test_cifar10_is_found_in_every_layout(tmp_path, layout):
    write_cifar(tmp_path / layout)
    found = data.load("cifar10", root=tmp_path)
    assert (len(found.train), len(found.test)) == (20, 4)
    assert found.train.y.tolist() == [0, 1, 2, 3] * 5
    assert "official set has 50,000 + 10,000" in found.note
    first = np.random.default_rng(0).integers(0, 256, (4, cifar10.RECORD), dtype=np.uint8)[0, 1:]
    assert np.array_equal(found.train.x[0], first.reshape(3, 32, 32))  # red, green, blue planes
    assert found.train.x.strides == (3072, 1, 96, 3)


def test_the_official_mean_of_the_pixels_is_recognized(tmp_path, monkeypatch):
    write_cifar(tmp_path)
    pixels = data.load("cifar10", root=tmp_path).train
    split = cifar10._split
    for shift, note in ((0.0, ""), (0.01, "pixels differ from the official files (JPEG copies?)")):
        monkeypatch.setattr(cifar10, "OFFICIAL_MEAN", tuple(pixels.x.mean(axis=(0, 2, 3)) + shift))
        monkeypatch.setattr(cifar10, "_split", lambda batches: (_Long(split(batches)[0]), split(batches)[1]))
        monkeypatch.setattr(cifar10, "Dataset", lambda name, train, test, classes, note, source: note)
        assert cifar10.load(tmp_path) == note


class _Long:
    """A split that says it has the official number of examples."""

    def __init__(self, split):
        self.split = split

    def __len__(self):
        return 50_000 if len(self.split) == 20 else 10_000


def test_places_are_tried_in_order_and_home_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TINYQNN_DATA", "~/env")
    assert places("~/root") == [tmp_path / "root", tmp_path / "env", tmp_path / "cache" / "tinyqnn"]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == tmp_path / ".cache" / "tinyqnn"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "tinyqnn"
    write_mnist(tmp_path / "env" / "mnist", train=2)
    assert len(data.load("mnist").train) == 2
    write_mnist(tmp_path / "root", train=1)
    assert len(data.load("mnist", root="~/root").train) == 1
    assert len(data.load("mnist", root=tmp_path / "elsewhere").train) == 2


@pytest.mark.parametrize("name", data.FOUND)
def test_what_is_missing_is_listed_with_the_places_and_the_remedies(tmp_path, name):
    with pytest.raises(FileNotFoundError) as caught:
        data.load(name, root=tmp_path / "nowhere")
    message = str(caught.value)
    wanted = {"mnist": "t10k-labels", "cifar10": "batch_5.bin", "ptb": "ptb.valid.txt", "ag_news": ".csv"}[name]
    places = (str(tmp_path / "nowhere"), "no such folder", str(tmp_path / "cache"))
    for part in (*places, "$TINYQNN_DATA", "download=True"):
        assert part in message
    assert wanted in message


def test_an_incomplete_set_is_said_to_be_incomplete(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="holds some of them, but not t10k-labels-idx1-ubyte"):
        data.load("mnist", root=tmp_path)


HEADER = bytes([0, 0, 8, 3]) + struct.pack(">3I", 5, 28, 28)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not an IDX file .* nothing"),
        (b"<html>404</html>" * 50, "not an IDX file"),
        (HEADER[:9], "ends inside its header"),
        (bytes([0, 0, 13, 3]) + HEADER[4:] + bytes(3920), "type 13"),
        (idx(np.zeros((5, 784))), "expected unsigned bytes .type 8. in 3 dimensions, the header says type 8 in 2"),
        (HEADER + bytes(3919), "3,935 bytes long, but its header needs 3,936"),
        (HEADER + bytes(3921), "3,937 bytes long"),
        (HEADER[:4] + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(10), "absurd"),
        (HEADER[:4] + struct.pack(">3I", 2**16, 2**16, 2**32 - 1), "absurd"),
        (HEADER[:4] + struct.pack(">3I", 0, 28, 28), "absurd"),
        (idx(np.zeros((5, 20, 20))), "28×28, got 20×20"),
        (idx(np.zeros((4, 28, 28))), "5 labels for 4 images"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_mnist_images_are_refused(tmp_path, content, complaint, packed):
    write_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    if packed:
        path.unlink()
        path = path.with_suffix(".gz")
        unpacked = {"3,935": "holds 3,935 of the 3,936", "3,937": "holds more than the 3,936"}
        complaint = unpacked.get(complaint[:5], complaint)
        content = gzip.compress(content)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=complaint) as caught:
        data.load("mnist", root=tmp_path)
    assert "train-" in str(caught.value)
    assert any(remedy in str(caught.value) for remedy in ("fetch", "swapped"))


def test_labels_beyond_nine_are_refused(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([1, 10, 3])))
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte: label 10 at index 1"):
        data.load("mnist", root=tmp_path)


@given(st.data())
def test_a_gzip_cut_or_altered_anywhere_gives_a_clear_error_or_the_very_content(tmp_path_factory, draw):
    whole = gzip.compress(idx(np.arange(600) % 256))
    path = tmp_path_factory.mktemp("gz") / "labels.gz"
    if draw.draw(st.booleans()):
        damaged = whole[: draw.draw(st.integers(0, len(whole) - 1))]
    else:
        at = draw.draw(st.integers(0, len(whole) - 1))
        damaged = whole[:at] + bytes([whole[at] ^ draw.draw(st.integers(1, 255))]) + whole[at + 1 :]
    path.write_bytes(damaged)
    try:
        content, complaint = read_idx(path, ndim=1), ""
    except ValueError as error:
        content, complaint = None, str(error)
    # Some bytes of gzip's own header mean nothing; then the content is whole.
    assert str(path) in complaint if content is None else np.array_equal(content, np.arange(600) % 256)


@pytest.mark.parametrize("claimed", [600, 2**29])
def test_a_gzip_bomb_is_not_unpacked(tmp_path, claimed):
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 1]) + struct.pack(">I", claimed) + bytes(50_000_000)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"holds .* bytes its header needs"):
            read_idx(path, ndim=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (1_000_000 if claimed == 600 else 120_000_000)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "0 bytes; expected at most 10,000 whole records of 3,073"),
        (bytes(3073 * 4 - 1), "12,291 bytes"),
        (bytes(3073) + b"\x0b" + bytes(3072), "label 11 in record 1"),
    ],
)
def test_damaged_cifar_batches_are_refused(tmp_path, content, complaint):
    write_cifar(tmp_path)
    (tmp_path / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(ValueError, match=complaint) as caught:
        data.load("cifar10", root=tmp_path)
    assert "data_batch_3.bin" in str(caught.value)


def test_a_cifar_batch_of_too_many_records_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "BATCH_BYTES", 3 * cifar10.RECORD)
    with pytest.raises(ValueError, match="more than 9,219 bytes"):
        cifar10.load(write_cifar(tmp_path))


class _Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (pickle.dumps(_Evil()), r"asks for builtins.print"),
        (pickle.dumps({b"labels": _Evil()}), r"asks for builtins.print"),
        (b"cos\nsystem\n(S'true'\ntR.", r"asks for os.system"),
        (b"", "not a CIFAR-10 batch"),
        (b"\x80\x02}.", "not a CIFAR-10 batch"),
        (pickle.dumps({b"labels": [1], b"data": np.zeros((2, 3072), np.uint8)}, protocol=2), "not bytes of shape"),
        (pickle.dumps({b"labels": [1], b"data": np.zeros((1, 3072))}, protocol=2), "holds an array of float64"),
        (pickle.dumps({b"labels": [1.5], b"data": np.zeros((1, 3072), np.uint8)}, protocol=2), "integers"),
        (python2_pickle([1, 2], np.zeros((2, 3072), np.uint8))[:-500], "not a CIFAR-10 batch"),
        (python2_pickle([1, 12], np.zeros((2, 3072), np.uint8)), "label 12 in record 1"),
    ],
)
def test_pickles_may_hold_arrays_and_nothing_else(tmp_path, capsys, content, complaint):
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        cifar10.read_pickle(path)
    assert capsys.readouterr().out == ""


def test_a_pickle_that_claims_a_huge_array_reserves_nothing(tmp_path):
    path = tmp_path / "data_batch_1"
    path.write_bytes(python2_pickle([1], np.zeros((1, 3072), np.uint8)).replace(b"(I0\nt", b"(I99999999999\nt"))
    _, pixels = cifar10.read_pickle(path)
    assert pixels.shape == (1, 3072)


def write_ptb(folder: Path, monkeypatch) -> Path:
    for name, text in zip(ptb.FILES, (" the <unk> sat \n the cat \n", " cat sat \n", " the cat \n")):
        (folder / name).write_text(text)
    monkeypatch.setattr(ptb, "TOKENS", {"ptb.train.txt": 7, "ptb.valid.txt": 3, "ptb.test.txt": 3})
    monkeypatch.setattr(ptb, "WORDS", 5)
    return folder


def test_ptb_ends_each_line_with_eos_and_numbers_words_as_they_appear(tmp_path, monkeypatch):
    corpus = data.load("ptb", root=write_ptb(tmp_path, monkeypatch))
    assert corpus.vocabulary == ("the", "<unk>", "sat", "<eos>", "cat")
    assert corpus.train.tolist() == [0, 1, 2, 3, 0, 4, 3]
    assert corpus.words(corpus.test) == "the cat <eos>"


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("ptb.valid.txt", b" cat \n", "ptb.valid.txt: 2 words with <eos>, PTB has 3"),
        ("ptb.test.txt", b" the d\xff\xfe \n", "ptb.test.txt: byte 6 is not UTF-8"),
        ("ptb.test.txt", b" the dog \n", "ptb.test.txt: the word 'dog' is not in the training text"),
        ("ptb.train.txt", b" the a b \n c d \n", "ptb.train.txt: 6 different words, PTB has 5"),
    ],
)
def test_damaged_ptb_is_refused(tmp_path, monkeypatch, name, content, complaint):
    write_ptb(tmp_path, monkeypatch)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        data.load("ptb", root=tmp_path)


def write_news(path: Path, per_class: int) -> Path:
    for_each = [(i, k) for i in range(per_class) for k in range(4)]
    path.write_text("".join(f'"{k + 1}","Title {k}","Word number {i}, and ""quoted"" news"\n' for i, k in for_each))
    return path


def test_ag_news_with_the_test_part_alone_divides_it_by_class(tmp_path):
    write_news(tmp_path / "test.csv", 19)
    news = data.load("ag_news", root=tmp_path, length=6)
    assert np.bincount(news.train.y).tolist() == [16] * 4
    assert np.bincount(news.test.y).tolist() == [3] * 4
    assert "test.csv alone" in news.note
    words = [news.vocabulary[i] for i in news.train.x[0]]
    assert words == ["title", "0", "word", "number", "0", "and"]
    assert (news.test.x == ag_news.UNKNOWN).any()  # "17" occurs in no training text


def test_ag_news_with_both_parts_keeps_them(tmp_path):
    write_news(tmp_path / "test.csv", 2)
    write_news(tmp_path / "train.csv", 5)
    news = data.load("ag_news", root=tmp_path, words=5, length=12)
    assert (len(news.train), len(news.test), len(news.vocabulary)) == (20, 8, 5)
    assert (news.train.x[:, -1] == ag_news.PAD).all()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('"5","title","text"', "line 9: expected a class from 1 to 4"),
        ('"1","title"', "line 9: .* got 2 columns"),
        ('"1","title","text', "line 9: unexpected end of data"),
        ('"1","ti"tle","text"', "line 9: "),
        ('"1","t\udcff","text"', "line 9: not UTF-8"),
    ],
)
def test_damaged_news_are_refused_with_the_line(tmp_path, line, complaint):
    path = write_news(tmp_path / "test.csv", 2)
    path.write_bytes(path.read_bytes() + line.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=complaint) as caught:
        data.load("ag_news", root=tmp_path)
    assert str(path) in str(caught.value)


def test_empty_news_are_refused(tmp_path):
    (tmp_path / "test.csv").write_text("")
    with pytest.raises(ValueError, match=r"test\.csv: empty"):
        data.load("ag_news", root=tmp_path)


def test_mnist_remotes_name_the_files_that_are_looked_for():
    assert [remote.name for remote in mnist.REMOTES] == [f"{name}.gz" for name in mnist.FILES]
