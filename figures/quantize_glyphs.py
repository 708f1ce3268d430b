"""What `tinyqnn quantize` prints and draws, for the README.

    python figures/quantize_glyphs.py       about a minute

Writes quantize_glyphs.txt (what was printed), .json (the result) and .png beside this file, and the README's block.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import blocks

from tinyqnn import quantize

HERE = Path(__file__).resolve().parent


def main() -> None:
    printed: list[str] = ["$ tinyqnn quantize"]
    with tempfile.TemporaryDirectory() as folder:
        quantize.run(quantize.configure("glyphs"), Path(folder), report=printed.append)
        text = "\n".join(printed).replace(folder, "runs/glyphs-1") + "\n"
        shutil.copyfile(Path(folder, "result.json"), HERE / "quantize_glyphs.json")
        shutil.copyfile(Path(folder, "report.png"), HERE / "quantize_glyphs.png")
    (HERE / "quantize_glyphs.txt").write_text(text, encoding="utf-8")
    print(text, end="")
    blocks.write()


if __name__ == "__main__":
    main()
