"""Put generated texts into the pages that show them: `<!-- generated from figures/x.txt -->`, a fence, `<!-- end -->`.

    python figures/blocks.py       a second

Whoever writes such a text calls `write`; a test compares every block with its file.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- generated from (\S+) -->\n```console\n).*?(```\n<!-- end -->)", re.S)


def pages() -> list[Path]:
    """The README and every tutorial."""
    return [ROOT / "README.md", *sorted((ROOT / "tutorials").glob("*.md"))]


def write() -> list[Path]:
    """Bring every block of every page up to date; returns the pages that changed."""
    changed = []
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = BLOCK.sub(lambda m: m[1] + (ROOT / m[2]).read_text(encoding="utf-8") + m[3], before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            changed.append(page)
    return changed


if __name__ == "__main__":
    for page in write():
        print(page.relative_to(ROOT))
