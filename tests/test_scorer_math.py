import gc
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from lhrm_train.rewards import ScoreError, math_worker, mathematics, scorer
from lhrm_train.rewards.math_worker import as_formula, equal
from tests.scoring import CONFIG, problem


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ("1/2", "0.5", True),
        ("1/2", "\\frac{1}{2}", True),
        ("$\\frac{1}{2}$", "The answer is $0.5$.", True),
        ("1/2", "so we get \\boxed{\\frac{2}{4}}", True),
        ("1/2", "2", False),
        ("\\sqrt{2}", "\\sqrt{2}", True),
        ("2", "\\sqrt{2}", False),
        ("x^2+2x+1", "(x+1)^2", True),
        ("x^2+2x+1", "(x-1)^2", False),
        ("2*x**2", "$2x^2$", True),
        ("2*x", "2", False),
        ("1,234", "The answer is 1,234.", True),
        ("50%", "0.5", True),
        ("5 cm", "5", True),
        ("x=3", "3", True),
        ("-3", "The value is -3", True),
        ("3", "3 or 4", False),
        ("(1,2)", "(1,2)", True),
        ("\\{1,2\\}", "\\boxed{2,1}", True),
        ("\\begin{pmatrix}1&2\\end{pmatrix}", "$\\begin{pmatrix}1&2\\end{pmatrix}$", True),
        ("1/3", "0.333", False),
        ("1/3", "0.333333", True),  # six decimals
        ("3", "", False),
        ("3", "dog", False),
        ("3", "\ufffd}{$", False),
        ("Paris", "Paris", None),
        ("", "3", None),
    ],
)
def test_math_worker_compares(reference, answer, expected):
    assert equal(reference, answer) is expected


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("x+2", "$x+2$"),
        (" 2**3. ", "$2^3$"),
        ("\\frac{1}{2} \\text{ cm}", "$\\frac{1}{2} \\text{ cm}$"),
        ("$x$", "$x$"),
        ("\\boxed{3}", "\\boxed{3}"),
        ("The answer is 3.", "The answer is 3"),
        ("1\n2", "1\n2"),
        ("", ""),
    ],
)
def test_a_bare_formula_gets_dollars(text, formula):
    assert as_formula(text) == formula


def test_math_works_in_any_thread_and_survives_its_worker():
    same = scorer("math", CONFIG)
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(partial(same, problem("3")), ["3", "4", "3\n"])) == [1, 0, 1]
    with pytest.raises(ScoreError, match="nothing can be read from reference 'Paris'"):
        same(problem("Paris"), "Paris")
    first = same._worker
    first.kill()
    with pytest.raises(ScoreError, match="its worker ended with code -9"):
        same(problem("3"), "3")
    assert same(problem("3"), "3") == 1
    second = same._worker
    assert second.pid != first.pid
    del same
    gc.collect()
    assert second.returncode is not None  # no process is left behind


def test_math_gives_up_on_an_endless_answer(monkeypatch, tmp_path):
    source = Path(math_worker.__file__).read_text(encoding="utf-8")
    assert "CPU_SECONDS = 5.0" in source
    fast = tmp_path / "fast_worker.py"
    fast.write_text(source.replace("CPU_SECONDS = 5.0", "CPU_SECONDS = 0.5"), encoding="utf-8")
    monkeypatch.setattr(mathematics, "_WORKER", fast)
    same = scorer("math", CONFIG)
    with pytest.raises(mathematics.MathTimeoutError, match="of CPU time"):
        same(problem("3"), "$9^{9^{9^9}}$")
    assert same(problem("9"), "3^2") == 1


def test_an_interrupted_call_leaves_no_reply_for_the_next(monkeypatch):
    same = scorer("math", CONFIG)
    assert same(problem("3"), "4") == 0

    def interrupt():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(same._worker, "stdout", SimpleNamespace(readline=interrupt, close=same._worker.stdout.close))
        with pytest.raises(KeyboardInterrupt):
            same(problem("3"), "3")
    assert same(problem("3"), "4") == 0
