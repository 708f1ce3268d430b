"""A file is written under another name and takes its own when it is complete: one sees the old file or the new one.

    write to a temporary name in the same folder → flush → fsync → rename onto the name → fsync the folder

Renaming within a folder is atomic; the first fsync makes sure that the bytes are on the disk before the name is, the
second that the name is.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Union

try:
    import fcntl
except ImportError:  # Windows: there an open file cannot be deleted, which says as much
    fcntl = None  # type: ignore[assignment]

PathLike = Union[str, "os.PathLike[str]"]


class FileError(ValueError):
    """A file is not what it should be: cut short, damaged, of another kind, too large. Says what to do."""


@contextlib.contextmanager
def atomic_write(path: PathLike, overwrite: bool | Callable[[Path], bool] = False) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `path` if the block ends well; otherwise nothing has happened.

    overwrite   what to do with a file that is already there: False refuses, True replaces it; a function of its path
                tells which (True for "one of ours, replace it")

    Raises FileExistsError, before anything is written, and OSError as it comes (no space, no permission). What an
    earlier process that was killed left half-written beside `path` is removed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(f"{folder}/note") as file:
    ...         _ = file.write(b"whole")
    ...     Path(folder, "note").read_bytes()
    b'whole'
    """
    path = Path(os.path.realpath(path))  # a link stays a link, the file it leads to is replaced
    if path.exists():
        if not path.is_file():
            raise FileExistsError(f"{path} is there and is no ordinary file; choose another name")
        if not (overwrite if isinstance(overwrite, bool) else overwrite(path)):
            raise FileExistsError(f"{path} is there already; choose another name, delete it, or pass overwrite=True")
    elif not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} into; create it first")
    _remove_leftovers(path)
    file, temporary = _create_beside(path)
    try:
        with file:
            if path.exists():
                os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows renames no open file; elsewhere the lock is kept until the name is taken
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def _create_beside(path: Path) -> tuple[BinaryIO, Path]:
    """A new file with a temporary name, locked: "a living process writes this". The lock ends with the process."""
    while True:
        temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(temporary, flags, 0o666), "w+b")
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        if temporary.exists():  # nobody took it for a leftover between its creation and the lock
            return file, temporary
        file.close()


def _remove_leftovers(path: Path) -> None:
    """Delete the temporary files of `path` that nobody is writing any more."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError), open(leftover, "rb") as file:
            if fcntl is not None:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError if it is being written
            os.unlink(leftover)


def _sync_folder(folder: Path) -> None:
    """Have the new name on the disk. Some systems cannot sync a folder: there it comes a little later."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def open_checked(path: PathLike, what: str, max_bytes: int) -> tuple[BinaryIO, int]:
    """An ordinary file of a believable length, open for reading, and its length. `what` says what is expected in it."""
    path = Path(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"{path} is {'a folder' if path.is_dir() else 'no ordinary file'}, expected {what}")
    if status.st_size > max_bytes:
        raise FileError(
            f"{path} has {status.st_size:,} bytes, more than the {max_bytes:,} believed of {what}; "
            "if it is really that large, pass max_bytes="
        )
    return open(path, "rb"), status.st_size
