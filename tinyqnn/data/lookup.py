"""Where data sets are looked for, and how their files are opened without trusting what they claim.

The places, in this order: the folder passed as `root`, then $TINYQNN_DATA, then the user's cache
($XDG_CACHE_HOME/tinyqnn, by default ~/.cache/tinyqnn, on macOS ~/Library/Caches/tinyqnn). Under each of them the
names other libraries use are understood too, so that data which is already on the disk need not be fetched again.
"""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

PathLike = str | os.PathLike[str]


def cache_folder() -> Path:
    """The user's cache: $XDG_CACHE_HOME/tinyqnn, ~/Library/Caches/tinyqnn on macOS, else ~/.cache/tinyqnn."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base).expanduser() / "tinyqnn"
    return Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache").expanduser() / "tinyqnn"


def places(root: PathLike | None = None) -> list[Path]:
    """Where to look, best first; a download goes to the first of them.

    >>> places("~/sets")[0] == Path.home() / "sets"
    True
    """
    chosen = [root, os.environ.get("TINYQNN_DATA") or None]
    return list(dict.fromkeys([*(Path(p).expanduser() for p in chosen if p is not None), cache_folder()]))


def find_file(folder: Path, name: str) -> Path | None:
    """`folder/name` or `folder/name.gz`, whichever is there (the plain one first), or None."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None


def find_folder(roots: Sequence[Path], subfolders: Sequence[str], names: Sequence[str]) -> Path | None:
    """The first of root/subfolder that holds all the `names` (plain or .gz), or None."""
    for root in roots:
        for subfolder in subfolders:
            if all(find_file(root / subfolder, name) for name in names):
                return root / subfolder
    return None


def the_file(folder: Path, name: str) -> Path:
    """`find_file` where the file has been seen already; raises FileNotFoundError if it has gone since."""
    path = find_file(folder, name)
    if path is None:
        raise FileNotFoundError(f"{folder / name}: gone, though it was there a moment ago")
    return path


def not_found(
    dataset: str, roots: Sequence[Path], subfolders: Sequence[str], names: Sequence[str]
) -> FileNotFoundError:
    """The error that says which files are wanted, where they were looked for, and what to do about it."""
    partial = ""
    for folder in (root / subfolder for root in roots for subfolder in subfolders):
        missing = [name for name in names if not find_file(folder, name)]
        if len(missing) < len(names):
            partial = f"\n{folder} holds some of them, but not {', '.join(missing)}."
            break
    lines = "".join(f"\n    {root}" + ("" if root.is_dir() else "   (no such folder)") for root in roots)
    inside = ", ".join(repr(s) for s in subfolders if s != ".")
    return FileNotFoundError(
        f"{dataset}: files not found: {', '.join(names)} (plain or .gz).\n"
        f"Looked in{lines}\nthere in {inside} and directly.{partial}\n"
        f"Put them there, point $TINYQNN_DATA or root= at a folder that has them, or fetch them: "
        f"`tinyqnn data {dataset}`, or tinyqnn.data.load({dataset!r}, download=True)."
    )


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a plain or .gz file, of which no more than `limit` + 1 bytes are ever unpacked.

    One byte too many is how the caller sees that a file is longer than it may be. Raises ValueError if a .gz is cut
    or corrupt.
    """
    if path.suffix != ".gz":
        with open(path, "rb") as file:
            return file.read(min(limit, path.stat().st_size) + 1)
    # Deflate packs at most 1032 bytes into one, so a small file cannot be meant to hold a large limit.
    limit = min(limit, 1032 * path.stat().st_size)
    try:
        with gzip.open(path, "rb") as packed:
            return packed.read(limit + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: not a whole gzip file ({error}); {again(path)}") from error


def again(path: Path) -> str:
    """The remedy for a damaged file, to end an error message with."""
    return f"delete {path.name} and fetch it again"
