"""Run a page: its python fences from top to bottom, in one namespace, and compare what they print with the page.

    python tutorials/run.py 03            the page whose name begins with 03
    python tutorials/run.py README.md     any page by its path
    python tutorials/run.py --write 03    put what is printed into the page's text fences (for authors)

A ```python fence is run. A ```text fence right after it (only prose between) must equal what the python fences printed
since the last one. A traceback points into the page: line numbers are the page's own.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Fence:
    """One fenced block of a page: its language, its text and the line its text starts on (from 1)."""

    language: str
    text: str
    line: int


class PageError(AssertionError):
    """A page prints something else than it says."""


def fences(page: Path) -> list[Fence]:
    """All fenced blocks of a Markdown page."""
    found: list[Fence] = []
    language, start, lines = None, 0, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        opening = re.fullmatch(r"```(\w*)", line)
        if language is None and opening:
            language, start, lines = opening[1], number + 1, []
        elif language is not None and line == "```":
            found.append(Fence(language, "".join(f"{text}\n" for text in lines), start))
            language = None
        elif language is not None:
            lines.append(line)
    if language is not None:
        raise PageError(f"{page.name}, line {start - 1}: this fence is never closed")
    return found


def run(page: Path, show: bool = False, write: bool = False) -> int:
    """Run all python fences of `page`; returns how many. Raises PageError where the page and its output differ.

    show    print what the fences print
    write   make the page say what they print
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    moved = 0
    namespace: dict[str, object] = {"__name__": "__page__"}
    printed, since, ran = "", 0, 0
    for fence in fences(page):
        if fence.language == "python":
            # The padding makes line numbers in tracebacks those of the page.
            code = compile("\n" * (fence.line - 1) + fence.text, str(page), "exec")
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(code, namespace)
            printed += output.getvalue()
            since, ran = fence.line, ran + 1
            if show:
                print(output.getvalue(), end="")
        elif fence.language == "text" and since:
            if write:
                start, stop = fence.line - 1 + moved, fence.line - 1 + moved + len(fence.text.splitlines())
                fresh = _tidy(printed).splitlines()
                lines[start:stop] = fresh
                moved += len(fresh) - (stop - start)
            elif _tidy(fence.text) != _tidy(printed):
                raise PageError(
                    f"{page.name}, line {fence.line}: the page says\n\n{fence.text}\n"
                    f"but the code from line {since} on prints\n\n{printed}"
                )
            printed, since = "", 0
    if write:
        page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ran


def _tidy(text: str) -> str:
    """Spaces at line ends and empty lines at the end do not count."""
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


def find(name: str) -> Path:
    """The page that `name` means: a path, or the start of a tutorial's file name."""
    if Path(name).is_file():
        return Path(name)
    pages = sorted(HERE.glob("[0-9]*.md"))
    chosen = [page for page in pages if page.name.startswith(name)]
    if len(chosen) != 1:
        raise SystemExit(f"no page {name!r}; there are:\n  " + "\n  ".join(page.name for page in pages))
    return chosen[0]


def main() -> None:
    write, names = "--write" in sys.argv[1:], [arg for arg in sys.argv[1:] if arg != "--write"]
    if len(names) != 1 or names[0].startswith("-"):
        sys.exit(__doc__)
    page = find(names[0])
    # Whoever runs a page wants its code and its warnings, not a window.
    os.environ.setdefault("MPLBACKEND", "Agg")
    try:
        count = run(page, show=True, write=write)
    except PageError as error:
        sys.exit(str(error))
    print(f"{page.name}: {count} python fences ran, and printed what the page says", file=sys.stderr)


if __name__ == "__main__":
    main()
