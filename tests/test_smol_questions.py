import ast
import random
import re
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from string import Formatter

import pytest
from conftest import ROOT

from lhrm_train.problems import Problem
from lhrm_train.rewards.exact import exact
from lhrm_train.rewards.numeric import Numeric
from lhrm_train.smol.equations import evaluate, false_equation
from lhrm_train.smol.items import KINDS, ItemError, items
from lhrm_train.smol.questions import lists, logic, measures, numbers, stories, tracking, working
from lhrm_train.smol.questions.base import LEVELS, Draw, Template
from lhrm_train.smol.questions.gym import SETTINGS
from lhrm_train.smol.rules import NUMBER_RULES
from lhrm_train.smol.text_rules import TEXT_RULES
from lhrm_train.smol.verify import TraceError, verify
from lhrm_train.suite.mix import SPLITS, split_of

# Four kinds are its tasks.
pytestmark = pytest.mark.usefixtures("reasoning_gym")
CELLS = [(kind, level) for kind in KINDS.values() for level in LEVELS]
EVEN = (1.0, 1.0, 1.0, 1.0)
# Content that a split can never have much of, because there is little of it.
SMALL = {("weekday", 1), ("fractions", 1), ("average", 1), ("grid", 1), ("letters", 4)}


@pytest.mark.parametrize(("kind", "level"), CELLS, ids=lambda value: getattr(value, "name", value))
def test_every_trace_is_true_and_the_scorer_takes_both_forms_of_the_answer(kind, level):
    rng = random.Random(level)
    for _ in range(60):
        draw = kind.draw(rng, level)
        verify(draw)
        rate = Numeric(1e-6) if draw.scorer == "numeric" else exact
        problem = Problem(messages=(), reference=draw.answer)
        assert rate(problem, draw.answer) == 1
        assert not draw.sentence or rate(problem, draw.sentence) == 1
        assert rate(problem, f"{draw.answer}1") == 0


@pytest.mark.parametrize(("kind", "level"), CELLS, ids=lambda value: getattr(value, "name", value))
def test_a_kind_varies_in_content_and_words(kind, level):
    rng = random.Random(level)
    draws = [kind.draw(rng, level) for _ in range(200)]
    assert len({draw.key for draw in draws}) > (15 if (kind.name, level) in SMALL else 40)
    assert len({draw.question for draw in draws}) > 60
    # The last sentence, and the first words, are not always the same ones.
    assert len({draw.trace.rsplit(". ", 1)[-1].split(draw.answer)[0] for draw in draws}) >= 4
    assert len({draw.question[:6] for draw in draws}) >= 3 or kind.name.startswith("gym ")  # which has its own words


def test_there_are_many_kinds_and_hard_levels_take_longer():
    assert len(KINDS) >= 14
    rng = random.Random(0)
    for kind in KINDS.values():
        words = [sum(len(kind.draw(rng, level).trace) for _ in range(40)) for level in LEVELS]
        assert words[3] > words[0] * 1.25, kind.name


def test_every_form_has_a_rule_and_every_rule_a_form():
    rng = random.Random(1)
    forms = {kind.draw(rng, level).form for kind, level in CELLS for _ in range(80)}
    assert forms == {*NUMBER_RULES, *TEXT_RULES}


FALSE = [
    ("shopping", 3, {"answer": "1"}, "does not end"),
    ("shopping", 3, {"trace": "3 * 4 = 13. So it is {answer}."}, "false equation"),
    ("shopping", 3, {"trace": "x = 4. So it is {answer}."}, "cannot be read"),
    ("sharing", 1, {"answer": "99", "trace": "So it is 99."}, "the answer is"),
    ("sharing", 1, {"sentence": "Each gets 77."}, "sentence"),
    ("weekday", 3, {"answer": "Noday", "trace": "So it is Noday."}, "the answer is"),
    ("weekday", 2, {"trace": "From Monday: Friday. So it is {answer}."}, "days count|the days passed are"),
    ("dates", 2, {"answer": "May 40", "trace": "So it is May 40."}, "the answer is"),
    ("clock", 2, {"answer": "25:00", "trace": "So it is 25:00."}, "the answer is"),
    ("backwards", 2, {"trace": "Spelled: a. From the end: a. So it is {answer}."}, "wrong spelling"),
    ("backwards", 1, {"trace": "Spelled: a. So it is {answer}."}, "wrong spelling"),
    ("ranking", 3, {"trace": "So it is {answer}."}, "other pairs"),
    ("boxes", 3, {"trace": "So it is {answer}."}, "the steps are"),
    ("grid", 3, {"trace": "1 + 1 = 2: (2, 2). So it is {answer}."}, "the places are"),
    ("letters", 2, {"answer": "30", "trace": "So it is 30."}, "the answer is"),
    ("units", 4, {"answer": "1", "trace": "So it is 1.", "sentence": ""}, "the answer is"),
]


@pytest.mark.parametrize(("name", "level", "change", "why"), FALSE)
def test_a_false_trace_or_answer_is_refused(name, level, change, why):
    draw = KINDS[name].draw(random.Random(5), level)
    changed = {key: value.replace("{answer}", draw.answer) for key, value in change.items()}
    with pytest.raises(TraceError, match=why):
        verify(replace(draw, **changed))


@pytest.mark.parametrize("form", ["all_true", "sort_up", "sort_words"])
def test_a_false_step_in_words_is_refused(form):
    rng = random.Random(0)
    name = "truth" if form == "all_true" else "sorting"
    draw = next(d for d in iter(lambda: KINDS[name].draw(rng, 2), None) if d.form == form)
    if form == "all_true":
        wrong = draw.trace.replace(": true", ": maybe").replace(": false", ": true")
    else:
        first, _, rest = draw.trace.partition(". ")
        wrong = f"{first.partition(': ')[0]}: zebra7. {rest}"
    assert wrong != draw.trace
    with pytest.raises(TraceError, match="wrong"):
        verify(replace(draw, trace=wrong))


@pytest.mark.parametrize(
    ("name", "form", "old", "new", "why"),
    [
        ("letters", "letter_count", " (1)", " (2)", "wrong count behind"),
        ("letters", "letter_count", ": ", ": x, ", "wrong spelling"),
        ("letters", "vowel_count", " (2)", "", "wrong count behind"),
        ("objects", "above_count", " no", " yes", "wrong verdict"),
        ("objects", "above_count", "yes (1), ", "yes (1), 3 no, ", "other numbers"),
        ("objects", "category_count", ": no", ": yes", "wrong verdicts"),
        ("truth", "count_true", " (1)", "", "wrong count behind"),
        ("gym leg_counting", "leg_counting", "spider: ", "spiders: ", "wrong legs"),
        ("gym letter_counting", "letter_counting", " (2)", " (1)", "wrong count behind"),
        ("gym letter_counting", "letter_counting", "; the no", "", "other words"),
        ("gym spell_backward", "spell_backward", "Spelled: ", "Spelled: x, ", "wrong spelling"),
        ("truth", "count_true", ": true", ": false", "wrong verdicts"),
        ("truth", "claim", ": true", ": false", "wrong verdicts"),
        ("sorting", "kth", "smallest is ", "smallest is 1", "wrong step"),
        ("dates", "date_after", "30 days:", "32 days:", "does not have 32 days"),
        ("units", "convert", " is 60 ", " is 61 ", "wrong unit"),
        ("truth", "count_true", "is smaller than", "is larger than", "is not larger than"),
        ("truth", "claim", ", so it is even", ", so it is odd", "is not odd"),
        ("truth", "all_true", "(2) ", "(3) ", "is not about"),
        ("sorting", "kth", "Of ", "of ", "wrong step|another number"),
        ("boxes", "boxes", " moved: ", " moved; the cat stays: ", "the steps are"),
        ("objects", "category_count", ": yes, ", ": yes, 1", "wrong verdicts"),
        ("gym letter_counting", "letter_counting", " no; ", "; ", "no verdict"),
        ("gym leg_counting", "leg_counting", ": no legs", "", "wrong legs"),
        ("percent", "percent", "10% is 1/10", "10% is 1/5", "is not 1/5"),
        ("percent", "percent", "1% of 300 is 3", "1% of 300 is 4", "is not 4"),
        ("percent", "price_off", "% of ", "1% of ", "asked"),
        ("weekday", "weekday_both", "So 3 days", "So 4 days", "3 days count"),
        ("dates", "days_between", "January has 31", "Janury has 31", "Janury does not have"),
        ("average", "mean", "There are 3 ", "There are 8 ", "8 comes from nowhere"),
    ],
)
def test_a_false_word_in_a_trace_is_refused(name, form, old, new, why):
    rng = random.Random(3)
    draws = (KINDS[name].draw(rng, level) for _ in range(500) for level in LEVELS)
    draw = next(draw for draw in draws if draw.form == form and old in draw.trace)
    with pytest.raises(TraceError, match=why):
        verify(replace(draw, trace=draw.trace.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("name", "level"),
    [("shopping", 4), ("sharing", 4), ("compare", 4), ("units", 4), ("rates", 3), ("inventory", 4), ("average", 4)],
)
def test_a_trace_without_one_of_its_steps_is_refused(name, level):
    rng, refused = random.Random(8), 0
    for _ in range(40):
        draw = KINDS[name].draw(rng, level)
        steps = draw.trace.split(". ")
        left_out = rng.choice([i for i, step in enumerate(steps[:-1]) if "=" in step])
        with suppress(TraceError):
            verify(replace(draw, trace=". ".join(steps[:left_out] + steps[left_out + 1 :])))
            refused -= 1
        refused += 1
    assert refused >= 37  # a number may be there by chance


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda k: k.name)
def test_an_answer_out_of_nowhere_is_refused(kind):
    rng, passed = random.Random(2), 0
    for _ in range(60):
        draw = kind.draw(rng, 3)
        with suppress(TraceError):
            verify(replace(draw, trace=f"1 + 1 = 2. So it is {draw.answer}."))
            passed += 1
    assert passed <= 6  # where the answer is 2


def test_sentences_name_nobody_whom_the_question_does_not():
    templates = [
        value for module in (stories, numbers, measures, lists, logic, tracking) for value in vars(module).values()
    ]
    for template in (value for value in templates if isinstance(value, Template)):
        for sentence in template.sentences:
            named = set(re.findall(r"\{(name|other|third|fourth|vehicle|xs|ys)\}", sentence))
            for question in template.questions:
                assert named <= {field for _, field, _, _ in Formatter().parse(question)}, (sentence, question)


@pytest.mark.parametrize(
    ("question", "form", "answer"),
    [
        ("Tom buys 3 pens at $4 each and 2 cups at $5 each, and pays with $30. How much?", "change", "8"),
        ("What is 7 - 2 * 3?", "expression", "1"),
        ("How many cm are 3 m and 25 cm?", "convert_sum", "325"),
        ("What number comes next: 2, 6, 18, 54, ...?", "sequence", "162"),
        ("What number comes next: 1, 2, 4, 7, 11, ...?", "sequence", "16"),
        ("How many days are there from January 30 to March 2 in a year of 365 days?", "days_between", "31"),
        ('How often does the letter "e" occur in "cheese"?', "letter_count", "3"),
        ("Ann has 4 apples, 2 saws and 3 plums. How many fruits does Ann have?", "category_count", "7"),
        ("Ann has 5 hats. Ann finds 3. Then Ann doubles the number. Then Ann loses 6. How many?", "stock", "10"),
        ("Of 12 kites, 25% are sold. How many kites are left?", "price_off", "9"),
        ("In 3 tests Ann wants a mean of 5. So far the marks are 4, 5. Which mark is needed?", "missing", "6"),
    ],
)
def test_the_rules_give_what_a_person_gets(question, form, answer):
    assert str(NUMBER_RULES[form](question)) == answer


@pytest.mark.parametrize(
    ("question", "form", "trace", "answer"),
    [
        (
            "Today is Friday. What day of the week is it in 10 days?",
            "weekday_after",
            "10 - 7 = 3. From Friday: Saturday, Sunday, Monday.",
            "Monday",
        ),
        (
            "Today is Monday. What day of the week was it 2 days ago?",
            "weekday_before",
            "From Monday: Sunday, Saturday.",
            "Saturday",
        ),
        ("What date is 3 days after February 27 in a year of 365 days?", "date_after", "3 - 1 = 2.", "March 2"),
        ("It is 9:50. What time is it in 2 hours and 15 minutes?", "time_after", "65 - 60 = 5. 11 + 1 = 12.", "12:05"),
        ("Is any of these statements true, yes or no? (1) 3 is even.", "any_true", "(1) : false.", "no"),
    ],
)
def test_the_rules_for_words_give_what_a_person_gets(question, form, trace, answer):
    assert TEXT_RULES[form](question, trace, answer) is None
    assert TEXT_RULES[form](question, trace, "other") == f"the answer is {answer}"


def test_equations():
    assert evaluate("(2 + 3) * 4 - 10 / 4") == Fraction(35, 2)
    assert false_equation("First 2 + 2 = 4. Then 4 * 3 = 2 * 6 = 12, and -1 - 1 = -2.") is None
    assert false_equation("2 + 2 = 4 = 5.") == "false equation 2 + 2 = 4 = 5"
    assert false_equation("two = 2") == "an equation that cannot be read"
    with pytest.raises(ValueError, match="not arithmetic"):
        evaluate("open")
    with pytest.raises(ValueError, match="has no value"):
        evaluate("1 / 0")


def test_written_arithmetic_is_right_and_split_by_places():
    assert working.multiply(47, 6) == "47 * 6 = 40 * 6 + 7 * 6 = 240 + 42 = 282"
    assert working.multiply(47, 36) == (
        "47 * 36 = 40 * 30 + 40 * 6 + 7 * 30 + 7 * 6 = 1200 + 240 + 210 + 42 = 1440 + 210 + 42 = 1650 + 42 = 1692"
    )
    assert working.subtract(632, 285) == "632 - 285 = 432 - 85 = 352 - 5 = 347"
    assert working.subtract(85, 38) == "85 - 38 = 55 - 8 = 47"
    assert working.add(347, 285) == "347 + 285 = 500 + 120 + 12 = 620 + 12 = 632"
    assert working.add(47, 38) == "47 + 38 = 70 + 15 = 85"
    assert working.operate(11, "-", 35) == ("35 - 11 = 24, so 11 - 35 = -24", -24)
    assert working.operate(-24, "-", 18) == ("24 + 18 = 30 + 12 = 42, so -24 - 18 = -42", -42)
    assert working.operate(-24, "+", 18) == ("24 - 18 = 14 - 8 = 6, so -24 + 18 = -6", -6)
    assert working.operate(-24, "+", 30) == ("-24 + 30 = 30 - 24 = 10 - 4 = 6", 6)
    assert working.divide(84, 6) == "84 / 6 = 60 / 6 + 24 / 6 = 10 + 4 = 14"
    rng = random.Random(2)
    for _ in range(2000):
        a, b = sorted((rng.randint(0, 999), rng.randint(0, 999)), reverse=True)
        c, d = rng.randint(1, 99), rng.randint(1, 60)
        for text, value in (
            (working.add(a, b), a + b),
            (working.subtract(a, b), a - b),
            (working.multiply(c, d), c * d),
            (working.divide(c * d, d), c),
        ):
            assert false_equation(text) is None, text
            assert text.endswith(f"= {value}")


def test_splits_share_no_content_and_no_question():
    seen = {split: items(3, split, 1500, EVEN) for split in SPLITS}
    content = {
        split: {item.draw.question if item.level == 1 else item.draw.key for item in drawn}
        for split, drawn in seen.items()
    }
    for split, drawn in seen.items():
        assert {split_of(one) for one in content[split]} == {split}
        assert len({item.draw.question for item in drawn}) == len(drawn)
    questions = [{item.draw.question for item in drawn} for drawn in seen.values()]
    assert not questions[0] & questions[1]
    assert not questions[0] & questions[2]
    keys = list(content.values())
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]


@pytest.mark.parametrize("task", SETTINGS)
def test_no_question_of_the_evaluation_is_drawn(task, reasoning_gym):
    asked = {entry["question"].strip() for entry in reasoning_gym.create_dataset(task, seed=90_001, size=200)}
    rng = random.Random(4)
    for level in LEVELS:
        assert not asked & {KINDS[f"gym {task}"].draw(rng, level).question for _ in range(200)}


@pytest.mark.parametrize(
    "name", ["expression", "fractions", "sequence", "units", "sharing", "percent", "gym chain_sum"]
)
def test_what_is_known_by_heart_is_not_asked_on_the_next_level(name):
    rng = random.Random(5)
    one, two = ({KINDS[name].draw(rng, level).key for _ in range(400)} for level in (1, 2))
    assert not one & two


def test_a_negative_number_in_a_sentence_is_read_as_one():
    text = "14 * 2 = 28. 9 * 9 = 81. 81 - 28 = 53, so 28 - 81 = -53. That makes -53."
    draw = Draw("expression", "k", "What is 14 * 2 - 9 * 9?", text, "-53", sentence="The result is -53.")
    verify(draw)
    with pytest.raises(TraceError, match="the sentence says"):
        verify(replace(draw, sentence="The result is 53."))


def test_items_follow_seed_and_weights():
    drawn = items(1, "train", 400, (3.0, 0.0, 0.0, 1.0))
    assert drawn == items(1, "train", 400, (3.0, 0.0, 0.0, 1.0))
    assert drawn != items(2, "train", 400, (3.0, 0.0, 0.0, 1.0))
    levels = Counter(item.level for item in drawn)
    assert set(levels) == {1, 4}
    assert 240 < levels[1] < 350
    assert {item.kind for item in drawn} == set(KINDS)


def test_a_small_kind_is_left_out_once_it_is_used_up():
    drawn = items(1, "test", 1500, (1.0, 0.0, 0.0, 0.0))
    counts = Counter(item.kind for item in drawn)
    assert counts["weekday"] < 60 < counts["shopping"]


def test_what_cannot_be_drawn_is_an_error(monkeypatch):
    with pytest.raises(ItemError, match="split = 'dev'"):
        items(1, "dev", 1, EVEN)
    with pytest.raises(ItemError, match="one weight for each of 1, 2, 3, 4"):
        items(1, "test", 1, (1.0,))
    monkeypatch.setattr("lhrm_train.smol.items.KINDS", {"weekday": KINDS["weekday"]})
    with pytest.raises(ItemError, match=r"has \d+ questions at these levels, not 5000"):
        items(1, "test", 5000, (1.0, 0.0, 0.0, 0.0))


def test_nothing_else_imports_the_package():
    imported = re.compile(r"^\s*(?:from|import) lhrm_train\.smol", re.MULTILINE)
    users = {path.parent for path in ROOT.glob("[a-z]*/**/*.py") if imported.search(path.read_text())}
    own = {ROOT / "lhrm_train/smol", ROOT / "lhrm_train/smol/questions", ROOT / "tests"}
    assert users == own


def test_generators_do_not_use_the_checker():
    for path in (ROOT / "lhrm_train/smol/questions").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not node.module.startswith(
                    (
                        "lhrm_train.smol.rules",
                        "lhrm_train.smol.text_rules",
                        "lhrm_train.smol.trace_rules",
                        "lhrm_train.smol.verify",
                    )
                )


def test_a_draw_without_sentence_needs_none():
    verify(Draw("distance", "k", "How far at 5 km/h that lasts 2 hours?", "5 * 2 = 10. So it is 10.", "10"))
