"""The kit: right quantizers of other people's making pass, wrong ones fail, each for its own reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import foreign
import numpy as np
import pytest

import tinyqnn as tq
from tinyqnn import cli, spec
from tinyqnn.spec import arrays
from tinyqnn.spec.wrong import MISTAKES, BinaryWithThreeLevels, ClipLeaks, FixedIgnoresItsAxis, UniformInPlace

HERE = Path(__file__).parent
FEW = {"examples": 15}


def run(*args: str) -> int:
    try:
        return cli.main(["check", *args])
    except SystemExit as exit:
        return exit.code


@pytest.fixture
def here(monkeypatch):
    monkeypatch.chdir(HERE)


class TestNegativeControls:
    def test_there_are_at_least_twelve(self):
        assert len({mistake.made for mistake in MISTAKES}) >= 12

    @pytest.mark.parametrize(
        "mistake",
        [pytest.param(m, id=m.made.__name__, marks=[pytest.mark.slow] * (i % 5 > 0)) for i, m in enumerate(MISTAKES)],
    )
    def test_a_mistake_breaks_exactly_the_laws_it_breaks(self, mistake):
        report = spec.check(mistake.made, mistake.scheme, **FEW)
        assert report.failed == mistake.breaks
        assert not report.passed

    @pytest.mark.slow
    @pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.made.__name__)
    def test_the_scheme_that_it_should_have_been_keeps_those_laws(self, mistake):
        assert spec.check(tq.quant.scheme(mistake.scheme), mistake.scheme, laws=list(mistake.breaks), **FEW).passed


class TestForeignQuantizers:
    def test_a_function_of_numpy_arrays_passes_as_what_it_is(self):
        report = spec.check(foreign.clip3, "C-3", gradient=foreign.clip3_gradient, **FEW)
        assert report.passed, str(report)
        verdicts = {f.law.name: f.verdict for f in report.findings}
        assert verdicts["gradient_stops_outside"] == verdicts["agrees_with"] == "holds"
        assert verdicts["codes_fit"] == "not applicable"

    def test_and_fails_as_what_it_is_not(self):
        assert spec.check(foreign.clip3, "C-2", **FEW).failed >= {"agrees_with", "has_at_most_2b_levels"}
        assert spec.check(foreign.clip3, "C-3", gradient=foreign.clip3_leaks, **FEW).failed == {
            "gradient_stops_outside"
        }

    @pytest.mark.parametrize("bits", [2, 3, 4])
    def test_an_object_that_encodes_and_decodes_passes(self, bits):
        report = spec.check(foreign.PowerOfTwo, f"P-{bits}", **FEW)
        assert report.passed, str(report)
        verdicts = {f.law.name: f.verdict for f in report.findings}
        asked = {"codes_fit", "codes_round_trip", "is_decode_of_encode", "equals_a_loop_over_channels"}
        assert {verdicts[name] for name in asked} == {"holds"}

    @pytest.mark.slow
    def test_pytorch_modules_and_functions_are_asked_with_their_gradients(self):
        pytest.importorskip("torch")
        import foreign_torch

        for module in (foreign_torch.Ternary, foreign_torch.TernaryExactly):
            report = spec.check(module, "T-2", **FEW)
            assert report.passed, str(report)
            assert next(f for f in report.findings if f.law.name == "gradient_passes_inside").verdict == "holds"
        failed = spec.check(foreign_torch.binary, "B-1", **FEW).failed
        assert failed >= {"has_at_most_2b_levels", "breaks_ties_as", "gradient_passes_inside"}
        assert "agrees_with" not in failed

    def test_a_function_of_our_tensors_is_asked_with_its_gradient(self):
        report = spec.check(lambda x: tq.quant.ClipQ(bits=3)(x), "C-3", **FEW)
        assert report.passed, str(report)
        assert next(f for f in report.findings if f.law.name == "gradient_stops_outside").verdict == "holds"

    def test_one_that_works_in_place_is_told_that_and_nothing_else(self):
        x = np.array([0.3, 0.4])
        subject = spec.Subject(UniformInPlace, 3)
        subject.quantize(x)
        assert x.tolist() == [0.3, 0.4]
        assert not np.shares_memory(subject.quantize(x), x)

    def test_one_that_raises_where_it_should_not_is_told_what_it_raised(self):
        def shy(x):
            if (x < -2.5).any():
                raise ArithmeticError("too low")
            return np.round(x)

        finding = next(f for f in spec.check(shy, bits=8, laws=["stays_finite"], **FEW).findings)
        assert finding.is_failure
        assert finding.counterexample.tolist() == [-3.0]
        assert "ArithmeticError: too low" in finding.story()[0]

    def test_without_a_claim_only_general_laws_must_hold(self):
        report = spec.check(np.floor, bits=8, **FEW)
        odd = next(f for f in report.findings if f.law.name == "is_odd")
        assert odd.verdict == "does not hold"
        assert not odd.is_failure
        assert "need not hold   is_odd" in str(report)

    @pytest.mark.parametrize(
        ("target", "words"),
        [(3, "cannot be called on an array"), (lambda x: "no", "not numbers"), (foreign.Averse, "cannot be made"),
         (lambda x, y: x, "cannot quantize")],
    )  # fmt: skip
    def test_what_cannot_be_asked_is_refused(self, target, words):
        with pytest.raises(spec.UsageError, match=words):
            spec.check(target)
        with pytest.raises(spec.UsageError, match=r"there is no law 'is_even'; there are keeps_dtype_and_shape, "):
            spec.check(np.round, laws=["is_even"])

    def test_it_leaves_no_trace(self):
        path, errors = list(sys.path), np.geterr()
        spec.check(spec.find("numpy:round"), **FEW)
        assert sys.path == path
        assert np.geterr() == errors


class TestShrinking:
    @pytest.mark.slow
    def test_the_counterexamples_of_the_mistakes_are_small(self):
        sizes = {}
        for mistake in MISTAKES:
            for finding in spec.check(mistake.made, mistake.scheme, **FEW).findings:
                if not finding.is_failure:
                    continue
                sizes[f"{mistake.made.__name__} {finding.law.name}"] = finding.counterexample.size
        large = {name: size for name, size in sizes.items() if size > 3 and "ThatRemembers" not in name}
        assert large == {"FixedWithoutClip has_at_most_2b_levels": 5}  # which is the least that shows five levels

    @pytest.mark.parametrize(
        ("fails", "wanted"),
        [
            (lambda x: (x < 0).any(), [-1.0]),
            (lambda x: len(x) >= 5, [0.0] * 5),
            pytest.param(lambda x: len(np.unique(x)) > 3, None, marks=pytest.mark.slow),
            pytest.param(lambda x: x.sum() > 100, None, marks=pytest.mark.slow),
            (lambda x: (np.abs(x) > 1e5).any() and (x == 0).any(), None),
        ],
    )
    def test_what_comes_out_fails_still_and_is_short(self, fails, wanted, rng):
        for _ in range(2):
            x = rng.standard_cauchy(40) * 1e4
            x[3:5] = 0.0
            if not fails(x):
                continue
            smallest = arrays.shrink(x, lambda y: bool(fails(y)))
            assert fails(smallest)
            assert len(smallest) <= 5
            assert wanted is None or smallest.tolist() == wanted

    def test_an_array_of_which_nothing_can_be_left_out_comes_out_as_it_went_in(self):
        for x in arrays.hard():
            same = arrays.shrink(x, lambda y, x=x: y.dtype == x.dtype and y.tobytes() == x.tobytes(), patience=50)
            assert same.tobytes() == x.tobytes()
            assert same.dtype == x.dtype

    def test_no_more_questions_are_asked_than_allowed(self):
        asked = []
        arrays.shrink(np.arange(50.0), lambda y: not asked.append(1) and len(y) == 50, patience=100)
        assert len(asked) <= 2 * 100

    def test_drawn_arrays_have_what_quantizers_stumble_over(self, rng):
        drawn = [arrays.draw(rng) for _ in range(600)]
        assert all(np.isfinite(x).all() and x.size for x in drawn)
        assert {x.dtype.name for x in drawn} == {"float32", "float64"}
        assert {x.ndim for x in drawn} == {1, 2}
        assert any(x.size == 1 for x in drawn)
        assert any(not x.flags.c_contiguous and x.size > 2 for x in drawn)
        assert any(x.size > 2 and x.min() == x.max() != 0 for x in drawn)
        assert any(np.signbit(x[x == 0]).any() for x in drawn)
        sizes = np.concatenate([np.abs(x[x != 0]).ravel().astype(np.float64) for x in drawn])
        assert sizes.min() < 1e-38
        assert sizes.max() >= 1e28
        hard = list(arrays.hard())
        assert any((x == 0).all() for x in hard)
        assert any(0 < np.abs(x).max() < 1e-300 for x in hard)


class TestCommand:
    def test_status_0_if_all_that_must_hold_does(self, here, capsys):
        gradient = ("--gradient", "foreign:clip3_gradient")
        assert run("foreign:clip3", "--as", "C-3", "--examples", "15", *gradient) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("foreign:clip3 against C-3, ClipQ(bits=3)")
        assert "C-3 does not keep it either: a quantized tensor has another sd" in shown
        assert " hold, 0 do not, " in shown

    def test_status_1_and_the_smallest_numbers_if_not(self, capsys, tmp_path):
        file = tmp_path / "report.json"
        line = ("tinyqnn.spec.wrong:BinaryWithThreeLevels", "--as", "B-1", "--examples", "15", "--json", str(file))
        assert run(*line) == 1
        shown = capsys.readouterr().out
        assert "does not hold   has_at_most_2b_levels" in shown
        assert "x = [0.0, 1.0, -1.0]" in shown
        record = json.loads(file.read_text())
        assert record["passed"] is False
        assert record["laws"]["has_at_most_2b_levels"]["counterexample"] == [0.0, 1.0, -1.0]

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ([], "name a quantizer"),
            (["nope"], "write package.module:Name"),
            (["nowhere.to:be_found"], "cannot import nowhere.to"),
            (["foreign:clip4"], "foreign has no clip4; it has Averse, PowerOfTwo"),
            (["foreign:silent"], "cannot be called on an array"),
            (["foreign:PowerOfTwo"], "give its width with --bits or --as"),
            (["foreign:clip3", "--as", "X-3"], "unknown scheme 'X-3'; there are B-1"),
            (["foreign:clip3", "--examples", "0"], "1 or more"),
            (["C-9"], "unknown scheme"),
        ],
    )
    def test_status_2_and_the_remedy_if_it_cannot_be_asked(self, here, line, words, capsys):
        assert run(*line) == 2
        error = capsys.readouterr().err
        assert words in error
        assert "Traceback" not in error

    def test_our_own_schemes_are_asked_by_their_names(self, capsys):
        assert run("F-4", "--examples", "15") == 0
        assert run("F-4", "--as", "F-3", "--examples", "15") == 1

    def test_the_table_is_printed(self, capsys, monkeypatch):
        from tinyqnn.spec import matrix

        monkeypatch.setattr(matrix, "COLUMNS", matrix.COLUMNS[:1])
        assert run("--matrix", "--examples", "5") == 0
        shown = capsys.readouterr().out
        assert "| law | B-1 |" in shown
        assert "- `is_odd`, B-1: 0 and −0 both go to −α. `x = [0.0, 1.0]`" in shown


USERS_SUITE = """
from tinyqnn.spec import laws_of
test_mine = laws_of("tinyqnn.spec.wrong:{name}", "{scheme}", examples=15)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("made", "failed"), [(ClipLeaks, 1), (BinaryWithThreeLevels, 8), (FixedIgnoresItsAxis, 1)])
def test_two_lines_in_somebody_elses_suite_are_enough(made, failed, tmp_path):
    scheme = next(mistake.scheme for mistake in MISTAKES if mistake.made is made)
    (tmp_path / "test_mine.py").write_text(USERS_SUITE.format(name=made.__name__, scheme=scheme))
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert f"{failed} failed" in done.stdout
    assert "passed" in done.stdout
    assert done.stdout.count("x = [") >= failed
    assert done.returncode == 1


def test_two_lines_pass_for_a_right_one_and_skip_what_is_not_applicable():
    test = spec.laws_of(foreign.clip3, "C-3", examples=15)
    (mark,) = test.pytestmark
    names = mark.args[1]
    assert {"agrees_with", "codes_fit"} <= set(names)
    assert "is_idempotent" not in names  # C-3 does not keep it either
    test("agrees_with")
    with pytest.raises(pytest.skip.Exception, match="no encode and decode"):
        test("codes_fit")
    with pytest.raises(pytest.fail.Exception, match=r"no other value|values are the scheme's"):
        spec.laws_of(foreign.clip3, "C-2", examples=15)("agrees_with")
