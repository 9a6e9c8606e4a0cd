import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhrm_train.rewards import ScoreError
from lhrm_train.rewards.choice import chosen
from tests.scoring import score


@pytest.mark.parametrize(
    ("answer", "letters"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(b)", "B"),
        ("[B]", "B"),
        ("B.", "B"),
        ("**B**", "B"),
        ("$B$", "B"),
        (" B\n", "B"),
        ("The answer is B.", "B"),
        ("the answer is (B), since A is too small", "B"),
        ("Answer: B", "B"),
        ("**Answer:** (B)", "B"),
        ("\\boxed{B}", "B"),
        ("\\boxed{\\text{(B)}}", "B"),
        ("A or C? No: \\boxed{A}, or rather \\boxed{b}", "B"),
        ("B) Paris", "B"),
        ("B: Paris", "B"),
        ("It must be (B)", "B"),
        ("I choose B", "B"),
        ("I would say B", "B"),
        ("Option B", "B"),
        ("Option A is wrong, so the answer is B", "B"),
        ("A capital of France is B", "B"),
        ("A is right", "A"),
        ("A dog", None),
        ("I think so", None),
        ("A, C", "AC"),
        ("C and A", "AC"),
        ("AC", "AC"),
        ("BB", None),
        ("B, B", "B"),
        ("The answers are A and C.", "AC"),
        ("\\boxed{A, C}", "AC"),
        ("(A), (C)", "AC"),
        ("The answer is (A) and (C)", "AC"),
        ("The answer is A or B", None),
        ("The answer is (A) or (B)", None),
        ("The answer is A and B or C", None),
        ("The answer is A/B", None),
        ("The answer is A, not B", "A"),
        ("The correct answer is option B", "B"),
        ("A or B", None),
        ("I or B", None),
        ("A and C", "AC"),
        ("(A) or (B)", None),
        ("The answer is A. No, the answer is B.", None),
        ("A) one\nB) two", None),
        ("\\boxed{42}", None),
        ("A \\boxed{}", None),
        ("", None),
        ("no", None),
        ("Bob", None),
        ("42", None),
        ("\ufffd", None),
    ],
)
def test_choice_reads(answer, letters):
    assert chosen(answer) == (None if letters is None else frozenset(letters))


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [("B", "b", 1), ("(b)", "B", 1), ("B.", "A", 0), ("A,C", "C and A", 1), ("A,C", "A", 0), ("B", "A or B", 0)],
)
def test_choice(reference, answer, expected):
    assert score("choice", reference, answer) == expected


@pytest.mark.parametrize("reference", ["", "Paris", "2"])
def test_choice_needs_letters_in_the_reference(reference):
    with pytest.raises(ScoreError, match="is not a letter or a list of letters"):
        score("choice", reference, "B")


@given(st.text(alphabet="ABIab ().:,\\boxed{}answer is\n") | st.text())
def test_choice_scores_any_text(answer):
    assert score("choice", "B", answer) in (0, 1)
