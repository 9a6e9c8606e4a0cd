from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhrm_train.rewards import ScoreError, scorer
from tests.scoring import CONFIG, problem, score


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ("8", "8", 1),
        ("8", "It is 8.", 1),
        ("8", "8 of 9", 0),  # the last number counts
        ("9", "8 of 9", 1),
        ("8", "", 0),
        ("8", "eight", 0),
        ("8", "8.0", 1),
        ("8", "08", 1),
        ("8", "+8", 1),
        ("8", "-8", 0),
        ("-8", "x=-8", 1),
        ("-8", "\u22128", 1),
        ("8", "10-8", 1),  # a minus between two numbers is no sign
        ("8", "(10)-8", 1),
        ("-8", "10 -8", 1),
        ("0", "-0", 1),
        ("0", "0.0000001", 0),  # the tolerance is relative
        ("0", "0.00", 1),
        ("8", "$8", 1),
        ("8", "\\$8", 1),
        ("-8", "-$8", 1),
        ("8", "8kg", 1),
        ("8", "答案是8。", 1),
        ("2", "x2", 0),  # glued to a letter
        ("2", "CO2", 0),
        ("12", "x_12", 0),
        ("1234567", "1,234,567", 1),
        ("1,234,567", "1234567", 1),
        ("1234", "1,23,4", 0),
        ("2345", "1,2345", 1),
        ("3", "1, 2, 3", 1),
        ("0.5", ".5", 1),
        ("0.5", "1/2", 1),
        ("1/2", "0.5", 1),
        ("0.5", "-1/2", 0),
        ("-0.5", "-1 / 2", 1),
        ("0.5", "\\frac{1}{2}", 1),
        ("2", "\\frac{1}{2}", 0),
        ("-0.5", "-\\dfrac{1}{2}", 1),
        ("-0.5", "\\frac{-1}{2}", 1),
        ("0.5", "1 1/2", 1),  # mixed numbers are two numbers
        ("5", "5/0", 0),
        ("4", "4, then 5/0", 1),
        ("3e5", "300000", 1),
        ("300000", "3E5", 1),
        ("300000", "3e+5", 1),
        ("0.003", "3e-3", 1),
        ("300000", "3 x 10^5", 1),
        ("300000", "3 \\times 10^{5}", 1),
        ("0.00003", "3\u00b710^{\u22125}", 1),
        ("50", "50%", 1),
        ("0.5", "50%", 1),
        ("50%", "50", 1),
        ("50%", "0.5", 1),
        ("50%", "50 \\%", 1),
        ("50%", "0.5%", 0),
        ("50%", "5000", 0),
        ("0.5", "5%", 0),
        ("1.000001", "1.0000019", 1),  # 0.9e-6 away; 1.000001e-6 is allowed
        ("1.000001", "1.0000021", 0),  # 1.1e-6 away
        ("10000001", "10000002", 0),  # whole numbers compare exactly
        ("10000001.0", "10000002", 1),
        ("9" * 400, "9" * 400, 1),  # beyond a float
        ("9" * 400, "9" * 399 + "8", 0),
        ("8", "1e999", 0),
        ("1e999", "8", 0),
        ("1e999", "1e999", 0),
        ("8", "nan", 0),
        ("8", "inf", 0),
    ],
)
def test_numeric(reference, answer, expected):
    assert score("numeric", reference, answer) == expected


def test_numeric_takes_its_tolerance_from_the_settings():
    rough = scorer("numeric", replace(CONFIG, numeric_tolerance=0.01))
    assert rough(problem("3.14"), "3.17") == 1  # 0.03 <= 0.0314
    assert rough(problem("3.14"), "3.18") == 0


@pytest.mark.parametrize("reference", ["", "eight", "1 1/2", "3 to 4", "1/0"])
def test_numeric_needs_one_number_in_the_reference(reference):
    with pytest.raises(ScoreError, match="does not hold exactly one number"):
        score("numeric", reference, "8")


NUMBER_LIKE = st.text(alphabet="0123456789.,+-\u2212/%$eExX*^{} \\frac\n") | st.text()


@given(NUMBER_LIKE)
def test_numeric_scores_any_text(answer):
    assert score("numeric", "8", answer) in (0, 1)


@given(st.integers(-(10**12), 10**12), st.text(alphabet="abc :="))
def test_numeric_finds_a_whole_number_after_any_words(value, words):
    assert score("numeric", str(value), f"{words} {value:,} m") == 1
    assert score("numeric", str(value + 1), f"{words} {value:,} m") == 0
