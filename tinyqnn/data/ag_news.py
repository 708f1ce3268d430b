"""AG News: headlines and first sentences of news in four classes (Zhang, Zhao and LeCun, 2015).

Here it stands in for THUCNews, the Chinese news texts of the AutoQNN paper.
A text becomes the numbers of its first words: 0 fills up short texts, 1 stands for words too rare to be in the
vocabulary.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .dataset import Dataset, Split
from .download import Remote, fetch
from .lookup import PathLike, again, find_file, find_folder, not_found, places, read_bytes, the_file

CLASSES = ("World", "Sports", "Business", "Sci/Tech")
SUBFOLDERS = ("ag_news", "AG_NEWS", "ag_news_csv", "datasets/AG_NEWS", ".")
MAX_BYTES = 128 << 20
MIRRORS = ("https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/",)
REMOTES = (
    Remote("train.csv", "md5:b1a00f826fdfbd249f79597b59e1dc12"),
    Remote("test.csv", "md5:d52ea96a97a2d943681189a97654912d", 1_857_427),
)
PAD, UNKNOWN = 0, 1


def load(
    root: PathLike | None = None,
    download: bool = False,
    words: int = 10_000,
    length: int = 64,
    mirrors: tuple[str, ...] = MIRRORS,
) -> Dataset:
    """The set found under `root`, $TINYQNN_DATA or the cache; fetched only if `download`. x is (N, length), int64.

    words   size of the vocabulary: the commonest of the training texts, with 0 for padding and 1 for all other words
    length  how many words of a text are kept

    With train.csv and test.csv it is the whole set, 120,000 + 7,600. With test.csv alone its 7,600 texts are
    divided, the last 300 of each class for testing and 1,600 for training; `note` says so.
    Raises FileNotFoundError when test.csv is missing, ValueError with the line number when one is damaged.
    """
    if words < 3 or length < 1:
        raise ValueError(f"words, length: expected at least 3 and 1, got {words} and {length}")
    roots, wanted = places(root), ("train.csv", "test.csv")
    folder = find_folder(roots, SUBFOLDERS, wanted) or find_folder(roots, SUBFOLDERS, wanted[1:])
    if folder is None and download:
        folder = roots[0] / "ag_news"
        for remote in REMOTES:
            fetch(remote, folder, [mirror + remote.name for mirror in mirrors])
    if folder is None:
        raise not_found("ag_news", roots, SUBFOLDERS, wanted[1:])
    test_texts, test_labels = _read(folder, "test.csv")
    if find_file(folder, "train.csv"):
        train_texts, train_labels = _read(folder, "train.csv")
        note = ""
        if (len(train_texts), len(test_texts)) != (120_000, 7_600):
            note = f"{len(train_texts):,} + {len(test_texts):,} texts, the official set has 120,000 + 7,600"
    else:
        last = np.zeros(len(test_labels), bool)
        for label in range(len(CLASSES)):
            members = np.flatnonzero(test_labels == label)
            last[members[len(members) - len(members) * 300 // 1900 :]] = True
        train_texts = [text for text, late in zip(test_texts, last) if not late]
        test_texts = [text for text, late in zip(test_texts, last) if late]
        train_labels, test_labels = test_labels[~last], test_labels[last]
        note = f"test.csv alone, divided into {len(train_texts):,} + {len(test_texts):,} texts"
    common = Counter(word for text in train_texts for word in text).most_common(words - 2)
    vocabulary = ("<pad>", "<unk>", *(word for word, _ in common))
    number = {word: i for i, word in enumerate(vocabulary)}
    train, test = (
        Split(_encode(texts, number, length), labels)
        for texts, labels in ((train_texts, train_labels), (test_texts, test_labels))
    )
    return Dataset("ag_news", train, test, CLASSES, note, str(folder), vocabulary)


def _encode(texts: list[list[str]], number: dict[str, int], length: int) -> NDArray[np.int64]:
    """Words -> numbers (N, length), cut or filled up at the end."""
    out = np.full((len(texts), length), PAD, np.int64)
    for row, text in zip(out, texts):
        row[: len(text)] = [number.get(word, UNKNOWN) for word in text[:length]]
    return out


def _read(folder: Path, name: str) -> tuple[list[list[str]], NDArray[np.int64]]:
    """The texts (title and description, as lower-case words) and labels of one .csv file of class, title,
    description."""
    path = the_file(folder, name)
    data = read_bytes(path, limit=MAX_BYTES)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path}: more than {MAX_BYTES:,} bytes, which no part of AG News has; {again(path)}")
    try:
        content = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8 text; {again(path)}") from error
    rows = csv.reader(io.StringIO(content), strict=True)
    texts, labels = [], []
    try:
        for row in rows:
            if len(row) != 3 or row[0] not in ("1", "2", "3", "4"):
                raise ValueError(
                    f"expected a class from 1 to 4, a title and a description, got {len(row)} columns "
                    f"that begin with {row[:1]}"
                )
            labels.append(int(row[0]) - 1)
            texts.append(re.findall(r"[a-z0-9']+", f"{row[1]} {row[2]}".lower()))
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path}, line {rows.line_num}: {error}; {again(path)}") from error
    if not texts:
        raise ValueError(f"{path}: empty; {again(path)}")
    return texts, np.array(labels, np.int64)
