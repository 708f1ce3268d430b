"""Which data sets there are, which of them are here, and where the others are looked for."""

from __future__ import annotations

from pathlib import Path

from . import ag_news, cifar10, mnist, ptb
from .lookup import PathLike, find_folder, places

SETS = {
    "glyphs": "28×28 digits like MNIST's: 12,000 training and 2,000 test images",
    "rings": "Holistic's synthetic set: concentric semicircles of two classes in the plane",
    "grammar": "sentences of a small grammar whose best possible perplexity is known",
    "mnist": "70,000 handwritten digits, 28×28",
    "cifar10": "60,000 colour pictures of ten things, 32×32",
    "ptb": "the Penn Treebank as language models read it: 10,000 words",
    "ag_news": "news items in four classes",
}


def where(name: str, root: PathLike | None = None) -> Path | None:
    """The folder in which a data set was found, None if it is not here.

    >>> where("mnist", "/nowhere/at/all") is None or where("mnist") is not None
    True
    """
    roots = places(root)
    if name == "cifar10":
        found = cifar10._find(roots)
        return found[0] if found else None
    if name == "ag_news":
        return find_folder(roots, ag_news.SUBFOLDERS, ("test.csv",))
    module = {"mnist": mnist, "ptb": ptb}[name]
    return find_folder(roots, module.SUBFOLDERS, module.FILES)


def catalogue(root: PathLike | None = None) -> str:
    """A line a data set: what it is, and whether it is here.

    >>> "glyphs" in catalogue()
    True
    """
    lines = []
    for name, description in SETS.items():
        if name in ("glyphs", "rings", "grammar"):
            state = "made on the spot"
        else:
            folder = where(name, root)
            state = f"here: {folder}" if folder else f"not here; tinyqnn data {name} fetches it"
        lines.append(f"{name:<9} {description}\n{'':<9} {state}")
    looked = "".join(f"\n    {place}" for place in places(root))
    return "\n".join(lines) + (
        f"\n\nlooked for in{looked}\n--root or $TINYQNN_DATA names another folder; torchvision's layout is understood"
    )
