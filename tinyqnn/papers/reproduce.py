"""`tinyqnn reproduce`: run an experiment's cells, print its table and its verdicts, leave result and picture."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from tinyqnn import files, picture
from tinyqnn.papers import experiment as experiments
from tinyqnn.papers import ledger
from tinyqnn.papers.experiment import PAPERS, SCALES, describe, title, version
from tinyqnn.papers.runner import Sweep, run_cells

SIZE = (9.0, 5.0)  # inches of a picture, unless the experiment has a SIZE of its own


def listing() -> str:
    """What can be reproduced, a line each."""
    known = experiments.names()
    width = max(map(len, known), default=0)
    return "\n".join(f"{name:<{width}}  {title(experiments.load(name))}" for name in known)


def reproduce(name: str, scale: str, folder: Path, jobs: int | None = None, figures: Path | None = None) -> Sweep:
    """Run what is not there yet, and write `folder`/NAME/SCALE/{result.json, table.txt, figure.png}.

    figures   also write NAME.json, NAME.txt, NAME.png and the ledger of claims there
    """
    experiment = experiments.load(name)
    configs = experiment.cells(scale)
    sweep = run_cells(name, configs, folder / name / "cells", jobs)
    if not sweep.cells:
        return sweep
    record = _record(name, scale, sweep)
    table = experiment.table(sweep.cells)
    drawn = picture.figure(*getattr(experiment, "SIZE", SIZE))
    with picture.look():
        experiment.draw(sweep.cells, drawn)
    targets = [(folder / name / scale, "result.json", "table.txt", "figure.png")]
    if figures is not None:
        stem = ledger.stem(name)
        targets.append((figures, f"{stem}.json", f"{stem}.txt", f"{stem}.png"))
    for place, result_name, table_name, picture_name in targets:
        place.mkdir(parents=True, exist_ok=True)
        _write(place / result_name, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        _write(place / table_name, table.rstrip("\n") + "\n")
        picture.save(drawn, place / picture_name)
    if figures is not None:
        ledger.write(figures)
    return sweep


def _record(name: str, scale: str, sweep: Sweep) -> dict[str, Any]:
    """Everything that came out, as result.json has it."""
    experiment = experiments.load(name)
    return {
        "experiment": name,
        "version": version(experiment),
        "title": title(experiment),
        "scale": scale,
        "seconds": round(sum(cell.seconds for cell in sweep.cells), 1),
        "claims": ledger.entries(experiment, name, scale, sweep.cells),
        "cells": [
            {"config": dataclasses.asdict(cell.config), "seconds": round(cell.seconds, 2), "result": cell.result}
            for cell in sweep.cells
        ],
        "failed": [{"config": dataclasses.asdict(config), "why": why} for config, why in sweep.failures],
        "environments": [
            json.loads(kind) for kind in sorted({json.dumps(found, sort_keys=True) for found in sweep.environments})
        ],
    }


def _write(path: Path, text: str) -> None:
    with files.atomic_write(path, overwrite=True) as file:
        file.write(text.encode("utf-8"))


def main(args: Any) -> int:
    """`tinyqnn reproduce`: `args` are the parsed arguments, see `tinyqnn.cli`."""
    if args.list or args.name is None:
        print(listing())
        return 0
    if args.scale not in SCALES:
        raise ValueError(f"--scale is one of {', '.join(SCALES)}, got {args.scale!r}")
    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"--jobs is 1 or more, got {args.jobs}")
    wanted = [name for name in experiments.names() if name.startswith(f"{args.name}.")] if args.name in PAPERS else []
    folder = Path(args.out)
    figures = None if args.figures is None else Path(args.figures)
    failed = False
    for name in wanted or [args.name]:
        sweep = _reproduced(name, args, folder, figures)
        failed = failed or bool(sweep.failures)
    return int(failed)


def _reproduced(name: str, args: Any, folder: Path, figures: Path | None) -> Sweep:
    """One experiment, and what is said of it."""
    experiment = experiments.load(name)
    print(f"{name}  {title(experiment)}\n", flush=True)
    try:
        sweep = reproduce(name, args.scale, folder, args.jobs, figures)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped; finished cells are in {folder / name / 'cells'}; the same command goes on from there"
        ) from None
    for config, why in sweep.failures:
        print(f"failed: {describe(config)}\n{why}", file=sys.stderr)
    if not sweep.cells:
        return sweep
    place = folder / name / args.scale
    print((place / "table.txt").read_text(encoding="utf-8"))
    print(ledger.text(ledger.entries(experiment, name, args.scale, sweep.cells)))
    print(
        f"\n{place}/   result.json  table.txt  figure.png   {sum(cell.seconds for cell in sweep.cells):.0f} s of work"
    )
    return sweep
