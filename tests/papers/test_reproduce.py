"""Experiments: cells are found again, failures stay alone, claims are decided by the numbers and by nothing else."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import types
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from tinyqnn.cli import main
from tinyqnn.kernels.jit import get_num_threads, set_num_threads
from tinyqnn.papers import experiment as experiments
from tinyqnn.papers import ledger, reproduce
from tinyqnn.papers.claims import FAILS, HOLDS, UNDECIDED, Claim, all_of, decide, exact, judge
from tinyqnn.papers.runner import run_cells

NAME = "holistic.toy"


@dataclasses.dataclass(frozen=True)
class Config:
    bits: int
    widths: tuple[int, ...] = (1, 2)
    fate: str = ""
    seed: int = 0


def toy(configs: list[Config]) -> types.ModuleType:
    """An experiment whose cells write down that they ran."""
    module = types.ModuleType(f"tinyqnn.papers.{NAME}", "A toy experiment.\n\nMore words.")

    def run(config: Config, report: experiments.Report) -> dict:
        report("here")
        if config.fate == "fails":
            raise ArithmeticError("no good")
        if config.fate == "interrupted":
            raise KeyboardInterrupt
        if config.fate == "killed" or (config.fate == "killed once" and not (report.folder / "seen").exists()):
            (report.folder / "seen").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"score": config.bits + 0.1 * config.seed}

    module.Config, module.run, module.cells = Config, run, lambda scale: configs
    module.CLAIMS = (Claim(f"{NAME}.scores", "scores exceed 1", lambda c: decide([x.result["score"] for x in c], 1)),)
    module.table = lambda cells: "\n".join(f"{cell.config.bits} {cell.result['score']:.1f}" for cell in cells)
    module.draw = lambda cells, figure: figure.subplots().plot([c.result["score"] for c in cells])
    return module


@pytest.fixture
def experiment(monkeypatch):
    """Puts an experiment of the given cells into the house."""

    def put(*configs: Config) -> types.ModuleType:
        module = toy(list(configs))
        monkeypatch.setitem(sys.modules, f"tinyqnn.papers.{NAME}", module)
        monkeypatch.setattr(experiments, "names", lambda: [NAME])
        return module

    return put


class Here(Executor):
    """Runs what is submitted at once, in this process."""

    def submit(self, function, /, *args, **options):
        future = Future()
        try:
            future.set_result(function(*args, **options))
        except Exception as error:
            future.set_exception(error)
        return future


def sweep(folder: Path, configs: list[Config], executor=Here, told: list[str] | None = None):
    return run_cells(NAME, configs, folder, executor=executor, progress=(told if told is not None else []).append)


def logs(folder: Path) -> int:
    return sum(len(file.read_text().splitlines()) for file in folder.rglob("log.txt"))


class TestCells:
    def test_a_finished_cell_is_not_run_again(self, experiment, tmp_path):
        configs = [Config(1), Config(2)]
        experiment(*configs)
        first = sweep(tmp_path, configs)
        more = [*configs, Config(3)]
        second = sweep(tmp_path, more)
        assert logs(tmp_path) == 3
        assert [cell.config for cell in second.cells] == more
        assert second.cells[:2] == first.cells

    def test_whatever_decides_the_outcome_makes_another_cell(self, experiment):
        module = experiment()
        variants = [Config(1), Config(2), Config(1, seed=1), Config(1, widths=(1,)), Config(1, fate="x")]
        keys = {experiments.key(NAME, module, config) for config in variants}
        module.VERSION = 2
        keys.add(experiments.key(NAME, module, Config(1)))
        assert len(keys) == len(variants) + 1
        assert experiments.key(NAME, module, Config(1)) in keys

    def test_a_cell_that_fails_is_told_and_does_not_stop_the_others(self, experiment, tmp_path):
        configs = [Config(1), Config(2, fate="fails"), Config(3)]
        experiment(*configs)
        told: list[str] = []
        done = sweep(tmp_path, configs, told=told)
        assert [cell.config.bits for cell in done.cells] == [1, 3]
        ((config, why),) = done.failures
        assert config.bits == 2
        assert "ArithmeticError: no good" in why
        assert sum("failed" in line for line in told) == 1
        assert "no good" in next(tmp_path.rglob("error.txt")).read_text()

    def test_a_stopped_sweep_goes_on_with_finished_cells_untouched(self, experiment, tmp_path):
        configs = [Config(1), Config(2, fate="interrupted"), Config(3)]
        module = experiment(*configs)
        with pytest.raises(KeyboardInterrupt):
            sweep(tmp_path, configs)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
        assert len(before) == 1
        good = module.run
        module.run = lambda config, report: good(dataclasses.replace(config, fate=""), report)
        assert len(sweep(tmp_path, configs).cells) == 3
        assert {path: path.stat().st_mtime_ns for path in before} == before

    @pytest.mark.skipif(sys.platform == "win32", reason="processes are not forked there")
    @pytest.mark.parametrize("fate", ["killed", "killed once"])
    def test_a_killed_process_is_tried_once_more_and_then_given_up(self, experiment, tmp_path, fate):
        configs = [Config(bits, fate=fate if bits == 2 else "") for bits in range(4)]
        experiment(*configs)
        done = sweep(tmp_path, configs, executor=lambda: ProcessPoolExecutor(1, get_context("fork")))
        kept = [0, 1, 2, 3] if fate == "killed once" else [0, 1, 3]
        assert [cell.config.bits for cell in done.cells if cell.config.bits in kept][:2] == [0, 1]
        assert len(done.cells) + len(done.failures) == 4
        assert (fate == "killed once") == (not done.failures)

    def test_any_executor_will_do(self, experiment, tmp_path):
        configs = [Config(bits) for bits in range(5)]
        experiment(*configs)
        threads = sweep(tmp_path / "threads", configs, executor=lambda: ThreadPoolExecutor(3))
        here = sweep(tmp_path / "here", configs)
        assert [c.result for c in threads.cells] == [c.result for c in here.cells]

    @pytest.mark.parametrize(("jobs", "each"), [(None, "1"), (1, "4"), (2, "2"), (3, "1")])
    def test_workers_share_the_threads_that_were_asked_for(self, experiment, tmp_path, jobs, each):
        configs = [Config(bits) for bits in range(4)]
        experiment(*configs)
        shares = []

        def workers():
            shares.append(os.environ["TINYQNN_THREADS"])
            return ThreadPoolExecutor(1)

        before = get_num_threads()
        set_num_threads(4)
        try:
            run_cells(NAME, configs, tmp_path, jobs, workers, progress=[].append)
        finally:
            set_num_threads(before)
        assert shares == [each]

    def test_the_environment_is_left_as_it_was(self, experiment, tmp_path, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        monkeypatch.delenv("TINYQNN_THREADS", raising=False)
        experiment(Config(1))
        sweep(tmp_path, [Config(1)])
        assert os.environ["OMP_NUM_THREADS"] == "7"
        assert "TINYQNN_THREADS" not in os.environ


class TestVerdicts:
    @pytest.mark.parametrize(
        ("differences", "bar", "verdict"),
        [
            ([1.0, 1.0, 1.0], 0.0, HOLDS),
            ([0.0, 0.0, 0.0], 0.0, FAILS),
            ([1.0, 1.0, 1.0], 1.0, FAILS),
            ([-1.0, -1.1, -0.9], 0.0, FAILS),
            ([1.0, -1.0, 0.5], 0.0, UNDECIDED),
            ([5.0, 5.0], 0.0, UNDECIDED),
            ([float("nan")] * 3, 0.0, UNDECIDED),
            ([3.0, 2.0, 1.0], 0.84, HOLDS),  # the mean is 2, the standard error 1/√3 = 0.577
            ([3.0, 2.0, 1.0], 0.85, UNDECIDED),
            ([3.0, 2.0, 1.0], 3.15, UNDECIDED),
            ([3.0, 2.0, 1.0], 3.16, FAILS),
        ],
    )
    def test_two_standard_errors_decide(self, differences, bar, verdict):
        assert decide(differences, bar).verdict == verdict

    def test_parts(self):
        yes, no, maybe = decide([1.0] * 3), decide([-1.0] * 3), decide([1.0])
        assert all_of([yes, yes]).verdict == HOLDS
        assert all_of([yes, maybe]).verdict == UNDECIDED
        assert all_of([maybe, no, yes]).verdict == FAILS
        assert all_of([yes, no]).effect == -1.0
        with pytest.raises(ValueError, match="no parts"):
            all_of([])

    def test_what_is_counted_needs_no_seeds(self):
        assert exact(True).verdict == HOLDS
        assert exact(False, 3.5).verdict == FAILS

    def test_missing_cells_decide_nothing(self):
        claim = Claim("holistic.toy.x", "x", lambda cells: decide([cells[0].result["lost"]] * 3))
        assert judge(claim, []).verdict == UNDECIDED
        assert "not there" in judge(claim, []).note


class TestCommand:
    @pytest.fixture(autouse=True)
    def here(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        whole = reproduce.run_cells
        monkeypatch.setattr(reproduce, "run_cells", lambda *args: whole(*args, executor=Here, progress=lambda _: None))

    def test_leaves_result_table_picture_and_ledger(self, experiment, tmp_path, capsys):
        experiment(*[Config(2, seed=seed) for seed in range(3)])
        assert main(["reproduce", NAME, "--figures", "figures"]) == 0
        printed = capsys.readouterr().out
        assert "A toy experiment." in printed
        assert "+ holistic.toy.scores" in printed
        for path in ("runs/reproduce/holistic.toy/small/result.json", "figures/holistic_toy.json"):
            record = json.loads(Path(path).read_text())
            assert record["claims"][0]["verdict"] == HOLDS
            assert len(record["cells"]) == 3
            assert record["environments"][0]["versions"]["numpy"]
        assert Path("figures/holistic_toy.png").read_bytes().startswith(b"\x89PNG")
        (entry,) = json.loads(Path("figures/claims.json").read_text())
        assert entry["id"] == f"{NAME}.scores"
        assert entry["paper"] == "holistic"
        assert Path(entry["result"]).exists()
        assert "scores exceed 1" in Path("figures/claims.md").read_text()
        assert main(["claims"]) == 0
        assert "Holistic: 1 of 1 hold" in capsys.readouterr().out

    def test_the_ledger_decides_from_the_numbers_not_from_the_stored_verdict(self, experiment, tmp_path):
        experiment(*[Config(2, seed=seed) for seed in range(3)])
        main(["reproduce", NAME, "--figures", "figures"])
        path = Path("figures/holistic_toy.json")
        record = json.loads(path.read_text())
        for cell in record["cells"]:
            cell["result"]["score"] = 0.5
        path.write_text(json.dumps(record))
        assert [entry["verdict"] for entry in ledger.read("figures")] == [FAILS]

    def test_a_result_of_another_version_of_its_experiment_is_called_stale(self, experiment, capsys):
        module = experiment(*[Config(2, seed=seed) for seed in range(3)])
        main(["reproduce", NAME, "--figures", "figures"])
        assert not any("stale" in entry for entry in ledger.read("figures"))
        assert "stale" not in capsys.readouterr().out
        module.VERSION = 2
        path = Path("figures/holistic_toy.json")
        record = json.loads(path.read_text())
        for cell in record["cells"]:  # what an old version knew and this one does not stops nobody else's results
            cell["config"]["forgotten"] = 1
        path.write_text(json.dumps(record))
        (entry,) = ledger.read("figures")
        assert entry["stale"]
        assert "*stale: the experiment has changed" in ledger.page([entry])
        assert main(["claims"]) == 0
        assert "stale: the experiment has changed" in capsys.readouterr().out
        main(["reproduce", NAME, "--figures", "figures"])
        assert not any("stale" in entry for entry in ledger.read("figures"))

    @pytest.mark.parametrize(
        "harm", [lambda text: text[:-30], lambda text: text.replace('"score": ', '"score": null, "was": ')]
    )
    def test_a_result_that_is_not_what_the_code_makes_is_named_with_the_remedy(self, experiment, capsys, harm):
        experiment(*[Config(2, seed=seed) for seed in range(3)])
        main(["reproduce", NAME, "--figures", "figures"])
        path = Path("figures/holistic_toy.json")
        path.write_text(harm(path.read_text()))
        assert main(["claims"]) == 1
        told = capsys.readouterr().err
        assert "figures/holistic_toy.json is damaged, or was made before holistic.toy was changed" in told
        assert f"tinyqnn reproduce {NAME} --figures" in told

    def test_a_failed_cell_shows_in_the_status_and_in_the_result(self, experiment, capsys):
        experiment(Config(1), Config(2, fate="fails"))
        assert main(["reproduce", NAME]) == 1
        told = capsys.readouterr()
        assert "no good" in told.err
        assert "1 1.0" in told.out
        record = json.loads(Path("runs/reproduce/holistic.toy/small/result.json").read_text())
        assert record["failed"][0]["config"]["bits"] == 2

    def test_ctrl_c_says_how_to_go_on(self, experiment, capsys):
        experiment(Config(1), Config(2, fate="interrupted"))
        assert main(["reproduce", NAME]) == 130
        assert "goes on from there" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("words", "remedy"),
        [
            (["reproduce", "holistic.toi"], "did you mean holistic.toy?"),
            (["reproduce", NAME, "--jobs", "0"], "--jobs is 1 or more"),
            (["claims", "--figures", "nowhere"], "has no result"),
        ],
    )
    def test_mistakes(self, experiment, capsys, words, remedy):
        experiment(Config(1))
        assert main(words) == 1
        assert remedy in capsys.readouterr().err

    def test_list(self, experiment, capsys):
        experiment()
        assert main(["reproduce", "--list"]) == 0
        assert capsys.readouterr().out == f"{NAME}  A toy experiment.\n"


FIGURES = Path(__file__).resolve().parents[2] / "figures"
NAMES = experiments.names()


@pytest.mark.slow
@pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="asks Linux for the workers")
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_however_a_sweep_is_stopped_its_workers_stop_and_it_says_how_to_go_on(tmp_path, how):
    line = [sys.executable, "-m", "tinyqnn", "reproduce", "dfq.table1_mnist", "--scale", "smoke", "--out", "runs"]
    starts = [signal.default_int_handler, signal.SIG_DFL]  # a job in the background ignores Ctrl-C
    run = subprocess.Popen(
        line, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: [signal.signal(s, starts[s != signal.SIGINT]) for s in (signal.SIGINT, signal.SIGHUP)],
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not any(tmp_path.rglob("cells/*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = [int(pid) for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]
    run.send_signal(getattr(signal, how))
    _, told = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "the same command goes on from there" in told
    assert workers
    while (left := [pid for pid in workers if Path(f"/proc/{pid}/exe").exists()]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left


@pytest.mark.parametrize("name", NAMES)
class TestEveryExperiment:
    def test_has_all_an_experiment_has(self, name):
        experiment = experiments.load(name)
        assert experiments.title(experiment)
        for scale in experiments.SCALES:
            configs = experiment.cells(scale)
            assert configs
            assert len({experiments.key(name, experiment, config) for config in configs}) == len(configs)
            for config in configs:
                fields = json.loads(json.dumps(dataclasses.asdict(config)))
                assert experiments.read_config(experiment, fields) == config
        assert len({claim.id for claim in experiment.CLAIMS}) == len(experiment.CLAIMS)
        assert all(claim.id.startswith(f"{name}.") for claim in experiment.CLAIMS)

    def test_its_committed_table_is_made_from_its_committed_result(self, name):
        path = FIGURES / f"{ledger.stem(name)}.json"
        if not path.exists():
            pytest.skip("not run yet")
        record = json.loads(path.read_text(encoding="utf-8"))
        experiment = experiments.load(name)
        cells = ledger.read_cells(experiment, record)
        assert [cell.config for cell in cells] == experiment.cells(record["scale"])
        assert not record["failed"]
        assert path.with_suffix(".txt").read_text(encoding="utf-8") == experiment.table(cells).rstrip("\n") + "\n"
        assert record["claims"] == ledger.entries(experiment, name, record["scale"], cells)
        assert path.with_suffix(".png").exists()


def test_the_committed_ledger_is_what_the_results_say():
    if not (FIGURES / "claims.json").exists():
        pytest.skip("no result yet")
    found = ledger.read(FIGURES)
    assert json.loads((FIGURES / "claims.json").read_text(encoding="utf-8")) == found
    assert (FIGURES / "claims.md").read_text(encoding="utf-8") == ledger.page(found)
    assert (FIGURES / "claims.txt").read_text(encoding="utf-8").endswith(f"\n{ledger.counts(found)}\n")
