"""Fetching a file so that it is either there, whole and checked, or not there at all.

It grows under the name `….part` in the folder it is meant for, and gets its own name only when its size and checksum
are right. A broken connection is taken up where it broke; a mirror that fails is followed by the next.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BLOCK = 1 << 16
MAX_BYTES = 1 << 30  # no set here comes near it


class DownloadError(OSError):
    """No mirror delivered the file; the message lists what each of them did."""


class _BrokenError(Exception):
    """The connection was lost: worth another try at the same place."""


class _RefusedError(Exception):
    """The server does not have the file, or cannot be reached: on to the next mirror."""


class _WrongError(Exception):
    """The server delivered something else."""


@dataclass(frozen=True)
class Remote:
    """A file on the net: its name, what its checksum must be ("md5:…" or "sha256:…"), its length in bytes if that is
    known."""

    name: str
    checksum: str
    size: int | None = None


def fetch(
    remote: Remote, folder: Path, urls: Sequence[str], attempts: int = 3, timeout: float = 30.0, pause: float = 1.0
) -> Path:
    """Fetches `remote` into `folder` from the first of `urls` that delivers it whole; returns its path.

    A connection that breaks is tried `attempts` times, `pause`, 2·`pause`, … seconds later, and asks only for the
    bytes still missing. A server that answers with an error, or with other bytes than the checksum promises, is left
    at once for the next. What an interrupted run left behind is taken up again. A file that is already there is not
    fetched.
    Raises DownloadError; then a `.part` file remains at most.
    """
    target, part = folder / remote.name, folder / f"{remote.name}.part"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in urls:
        try:
            with _progress_bar(remote.name, remote.size) as show:
                _fetch_from(url, part, remote, attempts, timeout, pause, show)
        except (_BrokenError, _RefusedError, _WrongError) as error:
            failures.append(f"\n    {url}: {error}")
        else:
            os.replace(part, target)
            return target
    raise DownloadError(
        f"{remote.name}: no mirror delivered it:{''.join(failures)}\n"
        f"Try again later (what has arrived is kept), or put the file into {folder} yourself."
    )


def _fetch_from(
    url: str, part: Path, remote: Remote, attempts: int, timeout: float, pause: float, show: Callable[[int], None]
) -> None:
    """Leaves the whole and verified file in `part`, or raises what the last attempt met."""
    for attempt in range(1, attempts + 1):
        resumed = part.exists()
        try:
            _transfer(url, part, remote.size, timeout, show)
            _verify(part, remote)
            return
        except _BrokenError:
            if attempt == attempts:
                raise
            time.sleep(pause * attempt)
        except _WrongError:
            part.unlink(missing_ok=True)
            if not resumed or attempt == attempts:  # what was left over may be to blame: once more from the start
                raise


def _transfer(url: str, part: Path, size: int | None, timeout: float, show: Callable[[int], None]) -> None:
    """Appends to `part` what it lacks of `size` bytes; a size that is not known is taken from the server."""
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have > size:
        raise _WrongError(f"{have:,} bytes were left over, more than the whole {size:,}")
    if have == size:
        return
    headers = {"User-Agent": "tinyqnn", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and size is None:  # perhaps everything is here; only a fresh start can tell
            raise _WrongError("the server has no more bytes than are already here") from error
        raise _RefusedError(f"HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _RefusedError(str(getattr(error, "reason", error)) or type(error).__name__) from error
    with response:
        if getattr(response, "status", 200) != 206:  # the server sends everything, whatever was asked for
            have = 0
        offered = response.headers.get("Content-Length")
        whole = have + int(offered) if offered is not None and offered.isdecimal() else None
        if size is None:
            size = MAX_BYTES if whole is None else whole
        elif whole is not None and whole != size:
            raise _RefusedError(f"offers {whole:,} bytes, the real file has {size:,}")
        if size > MAX_BYTES:
            raise _RefusedError(f"offers {size:,} bytes, which is absurd")
        with open(part, "ab" if have else "wb") as file:
            while True:
                try:
                    block = response.read(BLOCK)
                except (OSError, http.client.HTTPException) as error:
                    raise _BrokenError(f"connection lost after {have:,} of {size:,} bytes") from error
                if not block:
                    break
                have += len(block)
                if have > size:
                    raise _WrongError(f"sends more than the {size:,} bytes of the real file")
                file.write(block)
                show(have)
            file.flush()
            os.fsync(file.fileno())
    if have < size and (whole is not None or size != MAX_BYTES):
        raise _BrokenError(f"connection lost after {have:,} of {size:,} bytes")


def _verify(path: Path, remote: Remote) -> None:
    """Compares the checksum."""
    kind, expected = remote.checksum.split(":")
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise _WrongError(f"{kind} is {digest.hexdigest()}, the real file's is {expected}")


def unpack(archive: Path, folder: Path, sizes: Mapping[str, int]) -> None:
    """Takes the files named in `sizes` out of a .tar.gz into `folder`, without the folders they have in the archive.

    `sizes` says how many bytes each may have at most. Nothing else is unpacked, no link is followed, and the files
    get their names only when all of them are there. Raises ValueError when one is missing or too long, or the
    archive is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Path] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.rsplit("/", 1)[-1]
                source = tar.extractfile(member) if name in sizes and name not in parts and member.isfile() else None
                if source is None:
                    continue
                if member.size > sizes[name]:
                    raise ValueError(f"{archive}: {name} has {member.size:,} bytes, expected at most {sizes[name]:,}")
                parts[name] = folder / f"{name}.part"
                with source, open(parts[name], "wb") as file:
                    while block := source.read(1 << 20):
                        file.write(block)
                    file.flush()
                    os.fsync(file.fileno())
        if len(parts) < len(sizes):
            raise ValueError(f"{archive}: lacks {', '.join(sorted(set(sizes) - set(parts)))}")
    except (ValueError, EOFError, zlib.error, tarfile.TarError, OSError) as error:
        for path in parts.values():
            path.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:  # the disk, not the archive
            raise
        raise ValueError(f"{archive}: cannot be unpacked ({error}); delete it and fetch it again") from error
    for name, path in parts.items():
        os.replace(path, folder / name)


@contextmanager
def _progress_bar(name: str, size: int | None) -> Iterator[Callable[[int], None]]:
    """A function to be told how many bytes are there; draws only where someone watches."""
    if not sys.stderr.isatty():
        yield lambda have: None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        shown = -1

        def line(have: int) -> None:
            nonlocal shown
            if (tenths := have // 100_000) != shown:
                shown = tenths
                of = f" of {size / 1e6:.1f}" if size else ""
                print(f"\r{name}  {have / 1e6:.1f}{of} MB", end="", file=sys.stderr, flush=True)

        try:
            yield line
        finally:
            print(file=sys.stderr)
        return
    with tqdm(total=size, desc=name, unit="B", unit_scale=True) as bar:

        def move(have: int) -> None:
            bar.update(have - bar.n)

        yield move
