"""Data sets: three that are made on the spot, four that are found on the disk or downloaded.

    rings      points in the plane, two classes        made     Holistic §3.1
    glyphs     28×28 drawn digits, ten classes         made     something like MNIST, in a second
    grammar    a text from a small grammar             made     its best possible perplexity is known
    mnist      28×28 handwritten digits, ten classes   found
    cifar10    32×32 colour photographs, ten classes   found
    ag_news    short news texts, four classes          found
    ptb        the Penn Treebank                       found

`load(name)` gives a `Dataset` (splits `train` and `test`, each with x and y) or, for running text, a `Corpus`.
`batches` and `bptt_batches` walk through them. Nothing is ever downloaded unless `download=True` says so.
"""

from __future__ import annotations

import difflib
import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .augment import crop_and_flip as crop_and_flip
    from .dataset import Corpus as Corpus
    from .dataset import Dataset as Dataset
    from .dataset import Split as Split
    from .dataset import validation_split as validation_split
    from .download import DownloadError as DownloadError
    from .loader import batches as batches
    from .loader import bptt_batches as bptt_batches
    from .lookup import PathLike

MADE = ("rings", "glyphs", "grammar")
FOUND = ("mnist", "cifar10", "ag_news", "ptb")
NAMES = MADE + FOUND

_EXPORTS = {
    "Dataset": "dataset",
    "Split": "dataset",
    "Corpus": "dataset",
    "validation_split": "dataset",
    "batches": "loader",
    "bptt_batches": "loader",
    "crop_and_flip": "augment",
    "catalogue": "listing",
    "DownloadError": "download",
}
__all__ = ["load", "MADE", "FOUND", "NAMES", *NAMES, *_EXPORTS]


def load(name: str, root: PathLike | None = None, download: bool = False, **options: Any) -> Dataset | Corpus:
    """The data set called `name`.

    root      a folder to look in before $TINYQNN_DATA and the cache; sets made on the spot have no use for it
    download  fetch what is not found, into the first of those places
    options   what the set's own `load` understands: `rng=` for those made on the spot, `words=` for ag_news …

    Raises ValueError for an unknown name, TypeError for an unknown option, FileNotFoundError when files are missing
    (the message lists them and the places), ValueError when one is damaged, DownloadError when a download fails.

    >>> print(load("rings"))
    rings: 20,000 training and 34,621 test examples of shape (2,), 2 classes
    """
    if name not in NAMES:
        close = difflib.get_close_matches(str(name).lower().replace("-", ""), NAMES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ValueError(f"unknown data set {name!r}{hint} There are {', '.join(NAMES)}.")
    make = import_module(f".{name}", __name__).load
    known = [option for option in inspect.signature(make).parameters if option not in ("root", "download")]
    if unknown := sorted(set(options) - set(known)):
        raise TypeError(f"{name}: unknown option {', '.join(map(repr, unknown))}; it has {', '.join(known)}")
    if name in FOUND:
        return make(root=root, download=download, **options)
    return make(**options)


def __getattr__(name: str) -> Any:
    """Imports the rooms' files when they are first asked for."""
    if name in NAMES:
        return import_module(f".{name}", __name__)
    if name in _EXPORTS:
        return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
