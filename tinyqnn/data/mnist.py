"""MNIST: 70,000 handwritten digits of 28×28 grey pixels, the fruit fly of this field (LeCun, Cortes and Burges,
1998)."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .dataset import Dataset, Split
from .download import Remote, fetch
from .idx import read_idx
from .lookup import PathLike, again, find_file, find_folder, not_found, places, the_file

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
SUBFOLDERS = ("mnist", "MNIST/raw", "MNIST", ".")
MEAN, STD = (0.1307,), (0.3081,)  # of the 60,000 training images, white = 1
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
REMOTES = tuple(
    Remote(f"{name}.gz", f"md5:{md5}", size)
    for name, md5, size in zip(
        FILES,
        (
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        (9_912_422, 28_881, 1_648_877, 4_542),
    )
)
OFFICIAL_SHA256 = {  # of the images and then the labels, headers left out
    "train": "edc0d1098aa497be14ace79ddd5171e5a3dcf9c4d196c015389203eb3ba1f59b",
    "test": "c3f9adf9c66efb572b1f9326c3a511b45910c7173b97be66ceceeeeaef6b802b",
}


def load(root: PathLike | None = None, download: bool = False, mirrors: tuple[str, ...] = MIRRORS) -> Dataset:
    """The set found under `root`, $TINYQNN_DATA or the cache; fetched from the first working mirror only if `download`.

    The four IDX files may be plain or .gz, in mnist/, in torchvision's MNIST/raw/, or in the folder itself.
    Raises FileNotFoundError when a file is missing, ValueError when one is damaged, DownloadError when no mirror
    delivers.
    """
    roots = places(root)
    folder = find_folder(roots, SUBFOLDERS, FILES)
    if folder is None and download:
        folder = roots[0] / "mnist"
        for name, remote in zip(FILES, REMOTES):
            if not find_file(folder, name):
                fetch(remote, folder, [mirror + remote.name for mirror in mirrors])
    if folder is None:
        raise not_found("mnist", roots, SUBFOLDERS, FILES)
    (train, train_hash), (test, test_hash) = _read(folder, *FILES[:2]), _read(folder, *FILES[2:])
    note = ""
    if (train_hash, test_hash) != (OFFICIAL_SHA256["train"], OFFICIAL_SHA256["test"]):
        note = f"{len(train):,} + {len(test):,} images that differ from the official files"
    return Dataset("mnist", train, test, tuple("0123456789"), note, str(folder))


def _read(folder: Path, images_name: str, labels_name: str) -> tuple[Split, str]:
    """One pair of files as a split, and the hash of what is in them."""
    images_path, labels_path = the_file(folder, images_name), the_file(folder, labels_name)
    images, labels = read_idx(images_path, ndim=3), read_idx(labels_path, ndim=1)
    if images.shape[1:] != (28, 28):
        raise ValueError(
            f"{images_path}: expected images of 28×28, got {images.shape[1]}×{images.shape[2]}; " + again(images_path)
        )
    if len(images) != len(labels):
        raise ValueError(
            f"{labels_path}: {len(labels):,} labels for {len(images):,} images; the two files do not "
            "belong together, fetch both again"
        )
    if labels.max() > 9:
        raise ValueError(
            f"{labels_path}: label {int(labels.max())} at index {int(labels.argmax())}, digits go to 9; "
            + again(labels_path)
        )
    content = hashlib.sha256(images.data)
    content.update(labels.data)
    # (N, 28, 28) -> (N, 1, 28, 28)
    return Split(images[:, None], labels, MEAN, STD), content.hexdigest()
