"""The ledger: every claim of the three papers that was put to a test, with its verdict, from the committed results.

Verdicts are not stored and believed; they are decided anew from the cells each time the ledger is read, as long as the
experiment is the one that made them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tinyqnn import files
from tinyqnn.files.atomic import PathLike
from tinyqnn.papers import experiment as experiments
from tinyqnn.papers.claims import FAILS, HOLDS, UNDECIDED, Finding, judge
from tinyqnn.papers.experiment import PAPERS, Cell, Experiment, read_config

MARKS = {HOLDS: "+", FAILS: "−", UNDECIDED: "?"}
STALE = "the experiment has changed since this result was made; make it again"
TITLES = {"holistic": "Holistic", "dfq": "DFQ", "autoqnn": "AutoQNN"}


def stem(name: str) -> str:
    """The files of an experiment in the folder of figures: holistic.fig2 -> holistic_fig2.

    >>> stem("holistic.fig2")
    'holistic_fig2'
    """
    return name.replace(".", "_")


def figures_folder() -> Path:
    """The folder `figures` of this copy of the project; FileNotFoundError where only the package was installed."""
    for folder in (Path.cwd() / "figures", Path(__file__).resolve().parents[2] / "figures"):
        if (folder / "claims.json").exists():
            return folder
    raise FileNotFoundError(
        "no figures/claims.json here; run this in a checkout of tinyqnn, name its folder with --figures, "
        "or make results of your own: tinyqnn reproduce holistic.fig2 --figures FOLDER"
    )


def read_cells(experiment: Experiment, record: dict[str, Any]) -> list[Cell]:
    """The cells of a result as the experiment knows them."""
    return [Cell(read_config(experiment, c["config"]), c["result"], c["seconds"]) for c in record["cells"]]


def entries(experiment: Experiment, name: str, scale: str, cells: list[Cell]) -> list[dict[str, Any]]:
    """The claims of an experiment, judged, as claims.json has them."""
    found = []
    for claim in experiment.CLAIMS:
        if not claim.id.startswith(f"{name}."):
            raise ValueError(f"the claim {claim.id!r} of {name} must be named {name}.…")
        finding = judge(claim, cells)
        found.append(
            {
                "id": claim.id,
                "paper": name.split(".")[0],
                "text": claim.text,
                "verdict": finding.verdict,
                "effect": _number(finding.effect),
                "spread": _number(finding.spread),
                "at_least": finding.at_least,
                "unit": finding.unit,
                "seeds": finding.seeds,
                "note": finding.note,
                "scale": scale,
                "result": f"figures/{stem(name)}.json",
            }
        )
    return found


def _number(value: float) -> float | None:
    """Four digits are more than three seeds know; JSON has no NaN."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def read(folder: PathLike) -> list[dict[str, Any]]:
    """All claims whose results are in `folder`, decided from those results, paper by paper.

    `stale` is True in those whose experiment has another VERSION now than when the result was made: these are as they
    were decided then, for the experiment may not understand its old cells any more.
    """
    ledger: list[dict[str, Any]] = []
    for name in experiments.names():
        path = Path(folder) / f"{stem(name)}.json"
        if path.exists():
            experiment = experiments.load(name)
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                if record.get("version", 1) == experiments.version(experiment):
                    ledger += entries(experiment, name, record["scale"], read_cells(experiment, record))
                else:
                    ledger += [{**entry, "stale": True} for entry in record["claims"]]
            except (ValueError, TypeError, LookupError) as error:
                raise files.FileError(
                    f"{path} is damaged, or was made before {name} was changed ({error}); "
                    f"make it again: tinyqnn reproduce {name} --figures {folder}"
                ) from error
    return ledger


def write(folder: PathLike) -> list[dict[str, Any]]:
    """Make claims.json, claims.md and claims.txt (how many hold) in `folder` anew."""
    ledger = read(folder)
    for name, text in (
        ("claims.json", json.dumps(ledger, indent=1, ensure_ascii=False) + "\n"),
        ("claims.md", page(ledger)),
        ("claims.txt", f"$ tinyqnn claims | tail -{len(counts(ledger).splitlines())}\n{counts(ledger)}\n"),
    ):
        with files.atomic_write(Path(folder) / name, overwrite=True) as file:
            file.write(text.encode("utf-8"))
    return ledger


def _measured(entry: dict[str, Any]) -> str:
    if entry["effect"] is None:
        return entry["note"]
    finding = Finding(*(entry[k] for k in ("verdict", "effect", "spread", "seeds", "at_least", "unit")))
    return str(finding)


def counts(ledger: list[dict[str, Any]]) -> str:
    """How many claims hold, do not, and are undecided, paper by paper.

    >>> counts([{"paper": "dfq", "verdict": "holds"}])
    'DFQ: 1 of 1 hold, 0 do not, 0 undecided'
    """
    lines = []
    for paper in PAPERS:
        verdicts = [entry["verdict"] for entry in ledger if entry["paper"] == paper]
        if verdicts:
            lines.append(
                f"{TITLES[paper]}: {verdicts.count(HOLDS)} of {len(verdicts)} hold, "
                f"{verdicts.count(FAILS)} do not, {verdicts.count(UNDECIDED)} undecided"
            )
    return "\n".join(lines)


def text(ledger: list[dict[str, Any]]) -> str:
    """The ledger for a terminal."""
    lines = []
    for entry in ledger:
        lines += [f"{MARKS[entry['verdict']]} {entry['id']}  [{entry['scale']}]", f"    {entry['text']}"]
        lines.append(f"    {entry['verdict']}: {_measured(entry)}")
        if entry["note"] and entry["effect"] is not None:
            lines.append(f"    {entry['note']}")
        if entry.get("stale"):
            lines.append(f"    stale: {STALE}")
    return "\n".join([*lines, "", counts(ledger)])


def page(ledger: list[dict[str, Any]]) -> str:
    """The ledger as a page."""
    lines = [
        "# The ledger of claims",
        "",
        "What the papers say, put to a test here, at a scale that a laptop can pay for. Each claim was worded before",
        "its run and is decided by a function of the result: `tinyqnn reproduce NAME --figures figures` makes it,",
        "`tinyqnn claims` prints it. A claim holds, or does not, if the mean over the seeds lies on that side of the",
        "bar by more than two standard errors. With three seeds that lets pure noise pass once in eleven times: read",
        "effects and spreads, not verdicts alone. CIFAR-10 figures were measured on JPEG copies of its pictures.",
        "",
        *(f"- {line}" for line in counts(ledger).splitlines()),
        "",
    ]
    for paper in PAPERS:
        rows = [entry for entry in ledger if entry["paper"] == paper]
        if rows:
            lines += [
                f"## {TITLES[paper]}",
                "",
                "| claim | verdict | measured | scale | result |",
                "|---|---|---|---|---|",
            ]
            for entry in rows:
                file = Path(entry["result"]).name
                note = f"<br>{entry['note']}" if entry["note"] and entry["effect"] is not None else ""
                result = f"[{file.removesuffix('.json')}]({file})"
                measured = f"{_measured(entry)}{note}" + (f"<br>*stale: {STALE}*" if entry.get("stale") else "")
                lines.append(f"| {entry['text']} | **{entry['verdict']}** | {measured} | {entry['scale']} | {result} |")
            lines.append("")
    return "\n".join(lines)


def main(args: Any) -> int:
    """`tinyqnn claims`."""
    folder = Path(args.figures) if args.figures else figures_folder()
    ledger = [entry for entry in read(folder) if args.paper in (None, entry["paper"])]
    if not ledger:
        raise ValueError(f"{folder} has no result of {args.paper or 'any experiment'}; see tinyqnn reproduce --list")
    print(text(ledger))
    return 0
