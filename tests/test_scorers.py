import gc
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from referencing.exceptions import Unresolvable
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

from lhrm_train.config import ConfigError, RewardConfig
from lhrm_train.format import Message
from lhrm_train.problems import Problem
from lhrm_train.rewards import ScoreError, math_worker, mathematics, scorer
from lhrm_train.rewards.choice import chosen
from lhrm_train.rewards.math_worker import as_formula, equal
from lhrm_train.rewards.reward_model import RewardModel
from tests.tiny_model import tiny_llama

CONFIG = RewardConfig()


def problem(reference: str = "", **fields) -> Problem:
    return Problem((Message("user", "q"),), reference, fields=fields)


def score(name: str, reference: str, answer: str, **fields) -> float:
    return scorer(name, CONFIG)(problem(reference, **fields), answer)


# The table


def custom(problem: Problem, answer: str) -> float:
    return len(answer) / 10


NOT_A_FUNCTION = 3


@pytest.mark.parametrize("path", ["tests.test_scorers:custom", "tests.test_scorers.custom"])
def test_a_scorer_of_ones_own_is_named_by_its_import_path(path):
    assert score(path, "", "abc") == 0.3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exakt", r"unknown scorer 'exakt'; known: exact, numeric, math, choice, json, regex, gym, reward_model"),
        ("", r"unknown scorer ''"),
        ("no_such_module:f", r"'no_such_module:f' cannot be imported"),
        ("tests.test_scorers:missing", r"cannot be imported.*missing"),
        ("tests.test_scorers:NOT_A_FUNCTION", r"is not a function"),
        (".relative", r"cannot be imported"),
        ("..relative", r"cannot be imported"),
        ("json:", r"cannot be imported"),
        ("reward_model", r"model = ''"),
    ],
)
def test_the_table_refuses(name, message):
    with pytest.raises(ConfigError, match=message):
        scorer(name, CONFIG)


def test_a_missing_package_is_named_before_training(monkeypatch):
    monkeypatch.setattr("lhrm_train.rewards.base.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"'math' needs the package math_verify: pip install 'lhrm\[train\]'"):
        scorer("math", CONFIG)
    assert scorer("exact", CONFIG)(problem("8"), "8") == 1


def test_the_scorers_load_their_packages_when_they_score():
    code = (
        "import sys, lhrm_train.rewards as r, lhrm_train.config as c\n"
        "for name in ('math', 'regex', 'gym', 'json'): r.scorer(name, c.RewardConfig())\n"
        "heavy = 'torch transformers math_verify sympy regex jsonschema reasoning_gym'.split()\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


# exact


@pytest.mark.parametrize(
    ("answer", "expected"), [("8 cats", 1), (" 8 cats\n", 1), ("8 Cats", 0), ("8  cats", 0), ("", 0), ("\ufffd", 0)]
)
def test_exact(answer, expected):
    assert score("exact", "8 cats ", answer) == expected


# numeric


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


# choice


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


# json


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ('{"a": 1, "b": [true, null]}', '{"b": [true, null], "a": 1}', 1),
        ('{"a": 1}', ' {"a": 1.0}\n', 1),
        ('{"a": 1}', '{"a": 2}', 0),
        ('{"a": 1}', '{"a": true}', 0),
        ('{"a": 1}', '{"a": "1"}', 0),
        ("[1, 2]", "[2, 1]", 0),
        ("[0, 1]", "[false, true]", 0),
        ("0.1", "0.10", 1),
        ("9007199254740993", "9007199254740992", 0),  # equal as floats
        ("null", "", 0),
        ("null", "null", 1),
        ('{"a": 1}', '```json\n{"a": 1}\n```', 1),
        ('{"a": 1}', 'Here:\n```\n{"a": 1}\n```\nDone.', 1),
        ('{"a": 1}', '```json\n{"a": 2}\n```\n```json\n{"a": 1}\n```', 1),
        ('{"a": 1}', '```JSON \n{"a": 1}```', 1),
        ('{"a": 1}', '```python\n{"a": 1}\n```', 0),
        ('{"a": 1}', '```python\nx\n```\n```json\n{"a": 1}\n```', 1),
        ('{"a": 1}', '```json\n{"a": 1}', 0),
        ('{"a": 1}', 'Here: {"a": 1}', 0),
        ('{"a": 1}', "{'a': 1}", 0),
        ('{"a": 1}', '{"a": NaN}', 0),
        ('{"a": 1}', '{"a": 1', 0),
        ("1", "1e99999999999999999999", 0),
        ("1", "1" * 5000, 0),
        ("1", "[" * 100_000, 0),
    ],
)
def test_json(reference, answer, expected):
    assert score("json", reference, answer) == expected


@pytest.mark.parametrize("reference", ["", "{a}", "NaN"])
def test_json_needs_json_in_the_reference(reference):
    with pytest.raises(ScoreError, match="is not JSON"):
        score("json", reference, "1")


SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 1}}}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"n": ' + "1" * 5000 + "}", 0),
        ('{"n": NaN}', 0),
        ('{"n": 1}', 1),
        ('{"n": 2, "x": 0}', 1),
        ('{"n": 0}', 0),
        ("{}", 0),
        ("n", 0),
    ],
)
def test_json_schema(answer, expected):
    assert score("json", "ignored", answer, json_schema=SCHEMA) == expected


@pytest.mark.parametrize(
    ("schema", "message"), [({"type": "intr"}, "is not a JSON Schema"), ("{}", "is not a mapping")]
)
def test_json_refuses_a_bad_schema(schema, message):
    with pytest.raises(ScoreError, match=message):
        score("json", "", "1", json_schema=schema)


def test_a_json_schema_is_not_fetched(monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **kwargs: pytest.fail("fetched"))
    with pytest.raises(Unresolvable, match=r"example\.invalid"):
        score("json", "", "1", json_schema={"$ref": "https://example.invalid/schema"})


# regex


@pytest.mark.parametrize(
    ("pattern", "answer", "expected"),
    [
        (r"\d{2,3}", "123", 1),
        (r"\d{2,3}", " 123\n", 1),
        (r"\d{2,3}", "1234", 0),
        (r"\d{2,3}", "a 123", 0),
        ("(?i)yes|no", "No", 1),
        ("yes|no", "", 0),
        ("a.b", "a\nb", 0),
        ("", "", 1),
    ],
)
def test_regex(pattern, answer, expected):
    assert score("regex", pattern, answer) == expected


def test_regex_refuses_what_does_not_compile():
    with pytest.raises(ScoreError, match=r"reference '\(' is no regular expression"):
        score("regex", "(", "x")


def test_regex_gives_up_on_an_endless_match(monkeypatch):
    monkeypatch.setattr("lhrm_train.rewards.pattern.MATCH_SECONDS", 0.05)
    with pytest.raises(ScoreError, match=r"took over 0\.05 s"):
        score("regex", r"(a|aa)+\1(?<=b)$", "a" * 200)


# math


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


# No scorer takes longer than linear time on what a model repeats without end

LOOPS = (
    "1",
    "1,",
    "1 ",
    "1,234,",
    "-",
    " ",
    "\n",
    "B ",
    "(B) ",
    "answer ",
    "answer: ",
    "\\frac{",
    "\\boxed{",
    "```\n",
    "``` ",
    "{",
)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["exact", "numeric", "choice", "json"])
@pytest.mark.parametrize("loop", LOOPS)
def test_long_repetitions_are_scored_in_time(name, loop):
    reference = "B" if name == "choice" else "8"
    assert score(name, reference, f"answer {loop * 100_000}") in (0, 1)
    assert score(name, reference, f"```{' ' * 100_000}{loop} answer{' ' * 100_000}{loop}") in (0, 1)


# gym


@pytest.mark.parametrize("task", ["chain_sum", "leg_counting"])
def test_gym(reasoning_gym, task):
    entry = reasoning_gym.create_dataset(task, size=1, seed=3)[0]
    asked = problem(entry["answer"], dataset=task, entry=entry)
    gym = scorer("gym", CONFIG)
    assert gym(asked, entry["answer"]) == 1
    assert gym(asked, "") == 0
    assert gym(asked, "no idea") == 0


def test_gym_may_give_a_part_of_the_score(reasoning_gym):
    entry = {"question": "1 + 1 =", "answer": "2", "metadata": {}}
    assert scorer("gym", CONFIG)(problem(dataset="chain_sum", entry=entry), "x2xx") == 0.25


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"entry": {}}, r"fields\['dataset'\] = None is not a string"),
        ({"dataset": "chain_sum"}, r"fields\['entry'\] = None is not a mapping"),
        ({"dataset": "chain_sum", "entry": "{}"}, r"fields\['entry'\] = '\{\}' is not a mapping"),
        ({"dataset": "no_such_task", "entry": {}}, r"fields\['dataset'\] = 'no_such_task'"),
    ],
)
def test_gym_refuses(reasoning_gym, fields, message):
    with pytest.raises(ScoreError, match=message):
        score("gym", "", "1", **fields)


# reward_model

TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"


@pytest.fixture(scope="module")
def rater(tmp_path_factory):
    """A random reward model that knows a few words and reads at most 8 tokens."""
    path = tmp_path_factory.mktemp("rater")
    words = {"[UNK]": 0, "user": 1, "assistant": 2, "q": 3, "good": 4, "bad": 5, "user:": 6, "assistant:": 7, "<s>": 8}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 8)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=9,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=8,
        num_labels=1,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForSequenceClassification(config).save_pretrained(path)
    return path


def test_reward_model_compares_the_logit_with_the_threshold(rater):
    config = replace(CONFIG, model=str(rater))
    good = RewardModel(config).logit(problem(), "good")
    bad = RewardModel(config).logit(problem(), "bad")
    assert good != bad
    for threshold, expected in ((min(good, bad), {1}), (max(good, bad), {0, 1}), (max(good, bad) + 1, {0})):
        rate = scorer("reward_model", replace(config, model_threshold=threshold))
        assert {rate(problem(), "good"), rate(problem(), "bad")} == expected


def test_reward_model_uses_its_own_template_where_it_has_one(rater, monkeypatch):
    model = RewardModel(replace(CONFIG, model=str(rater)))
    model.logit(problem(), "good")
    lm, tokenizer = model._loaded
    seen = []
    monkeypatch.setattr(lm, "forward", lambda **inputs: seen.append(inputs["input_ids"].tolist()) or 1 / 0)
    for template in (None, TEMPLATE):
        monkeypatch.setattr(tokenizer, "chat_template", template)
        with pytest.raises(ZeroDivisionError):
            model.logit(problem(), "good")
    assert seen == [[[8, 6, 3, 7, 4]], [[1, 3, 2, 4]]]


def test_reward_model_refuses_what_it_cannot_rate(rater, monkeypatch):
    model = RewardModel(replace(CONFIG, model=str(rater)))
    with pytest.raises(ScoreError, match="9 tokens exceed the 8"):
        model(problem(), "good " * 5)
    lm, _ = model._loaded
    with torch.no_grad():
        lm.score.weight.fill_(torch.nan)
    with pytest.raises(ScoreError, match="logit = nan"):
        model(problem(), "good")


def test_reward_model_refuses_a_model_of_another_kind(rater, tmp_path):
    with pytest.raises(ConfigError, match=r"missing' cannot be loaded"):
        RewardModel(replace(CONFIG, model=str(tmp_path / "missing")))(problem(), "good")
    lm = tiny_llama()
    lm.config.num_labels = 1
    lm.save_pretrained(tmp_path)
    PreTrainedTokenizerFast.from_pretrained(rater).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"is no reward model: no \['score.weight'\]"):
        RewardModel(replace(CONFIG, model=str(tmp_path)))(problem(), "good")
    many = LlamaForSequenceClassification.from_pretrained(rater, num_labels=3, ignore_mismatched_sizes=True)
    many.save_pretrained(tmp_path / "many")
    PreTrainedTokenizerFast.from_pretrained(rater).save_pretrained(tmp_path / "many")
    with pytest.raises(ConfigError, match="has 3 outputs"):
        RewardModel(replace(CONFIG, model=str(tmp_path / "many")))(problem(), "good")
