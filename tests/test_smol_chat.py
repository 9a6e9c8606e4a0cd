import json
from collections import Counter
from dataclasses import asdict, astuple, replace

import pytest

from lhrm_train.config import RewardConfig
from lhrm_train.format import ChatTokenizer, Message
from lhrm_train.init import init_base
from lhrm_train.problems import Problem
from lhrm_train.rewards.table import scorer
from lhrm_train.samplers import load_for_evaluation
from lhrm_train.smol import answers as answers_module
from lhrm_train.smol import everyday
from lhrm_train.smol.answers import AnswersError, Sampling, judged, read_answers, sample_answers
from lhrm_train.smol.data import CHAT_SCORER
from lhrm_train.smol.fluency import fault, finished_part, fluent
from lhrm_train.suite.mix import SPLITS
from tests.bases import llama_tied, save_base

SAMPLING = Sampling("tiny", samples=2, max_new_tokens=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smol-chat")
    return init_base(str(save_base(folder / "raw", *llama_tied())), folder / "base", "tiny")


def test_the_everyday_prompts_are_many_distinct_and_short():
    prompts = everyday.prompts()
    assert len(prompts) >= 1200
    assert len({prompt.prompt.casefold() for prompt in prompts}) == len(prompts)
    assert max(len(prompt.prompt) for prompt in prompts) < 400
    assert len(Counter(prompt.group for prompt in prompts)) >= 20


def test_the_everyday_file_is_small_and_clean():
    path = answers_module.Path(everyday.__file__).with_name("everyday.jsonl")
    assert path.stat().st_size < 300_000
    for prompt in everyday.prompts():
        assert prompt.prompt == prompt.prompt.strip()
        assert "{" not in prompt.prompt
        assert "  " not in prompt.prompt


def test_everyday_prompts_about_one_thing_share_a_split():
    parts = {split: everyday.prompts_of(split) for split in SPLITS}
    assert sum(map(len, parts.values())) == len(everyday.prompts())
    assert min(len(parts["validation"]), len(parts["test"])) > 80
    keys = [{prompt.key for prompt in part} for part in parts.values()]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    about_honey = [prompt for prompt in everyday.prompts() if prompt.key == "facts_about honey"]
    assert len(about_honey) == 2
    assert len({prompt.split for prompt in about_honey}) == 1


def test_given_answers_follow_the_rules_and_are_not_sampled(base, tmp_path, monkeypatch):
    given = [prompt for prompt in everyday.prompts() if prompt.answer]
    assert {prompt.prompt for prompt in everyday.prompts() if prompt.group == "greeting"} <= {p.prompt for p in given}
    assert [fault(prompt.prompt, prompt.answer) for prompt in given] == [""] * len(given)
    monkeypatch.setattr(answers_module, "prompts", lambda: given)
    assert not sample_answers(base, tmp_path / "answers.jsonl", SAMPLING)
    assert not (tmp_path / "answers.jsonl").exists()


def test_plans_name_groups_that_there_are():
    assert everyday.PLANS.keys() <= {prompt.group for prompt in everyday.prompts()}


def test_the_model_says_who_it_is():
    assert all(not fault(question, "I am fine.") for question in everyday.IDENTITY)
    assert all("SmolLM" not in answer and everyday.NAME in everyday.WHO for answer in everyday.IDENTITY.values())


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("Photosynthesis turns light into sugar.", ""),
        ("Paris", ""),  # a word is an answer
        ("Red, blue, and green are colours", "unfinished"),
        ("1. Apples\n2. Pears\n3. Plums", ""),
        ("It is warm!\n\nEnjoy it \U0001f600", ""),
        ("", "length"),
        ("a" * 901, "length"),
        ("The water goes up and then the water", "unfinished"),
        ("I am SmolLM, made by Hugging Face.", "echo"),
        ("As an AI language model I cannot say.", "echo"),
        ("Hello. <|im_start|>user", "markup"),
        ("Fine.\nuser\nHow are you?", "markup"),
        ("Explain light to me.", "copy"),
        ("Light to me!", "copy"),
        ("Light.", ""),
        ("Stop.\nGo.\nStop.", "repetition"),
        ("one two three four, one two three four, one two three four.", "repetition"),
        ("one two three four, one two three four.", ""),
    ],
)
def test_the_rules_for_everyday_answers(answer, why):
    assert fault("Explain light to me.", answer) == why


def test_a_question_about_language_models_may_be_answered():
    assert fault("What is a language model?", "A language model predicts words.") == ""


def test_chat_problems_name_a_scorer_that_can_be_had():
    rate = scorer(CHAT_SCORER, RewardConfig())
    assert rate is fluent
    problem = Problem(messages=(Message("user", "Say hello."),))
    assert rate(problem, "Hello to you!") == 1.0
    assert rate(problem, "Say hello.") == 0.0


def test_completions_are_judged_by_their_text_and_ending(base):
    tokenizer = ChatTokenizer.load(base)

    def ids(text):
        return [*tokenizer.encode_text(text), tokenizer.turn_end_id]

    long = "It is warm today, and the sun shines on all of the houses by the sea. The"
    drawn = [ids("Good day."), ids(" Good day. "), ids("Good day.")[:-1], ids("Hi. I am SmolLM."), [], ids(long)[:-1]]
    accepted, rejected = judged("hello", drawn, tokenizer)
    assert accepted == ["Good day.", long.removesuffix(" The")]
    assert rejected == {"again": 1, "cut": 2, "echo": 1}


@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        ("One is here. Two is he", "One is here."),
        (
            "Here they are:\n\n1. Apples are red.\n2. Pears are green.\n3. Plums a",
            "Here they are:\n\n1. Apples are red.\n2. Pears are green.",
        ),
        ("It has two parts. They are:\n- a", ""),
        ("The first part is done.\n\nThese are the others:\n- a", "The first part is done."),
        ("no end at all", ""),
        ("", ""),
    ],
)
def test_of_a_cut_answer_the_finished_part_is_left(cut, kept, monkeypatch):
    monkeypatch.setattr("lhrm_train.smol.fluency.SHORTEST_PART", 10)
    assert finished_part(cut) == kept


def test_little_that_is_finished_is_nothing():
    assert finished_part("Yes. And then the") == ""


def test_an_interrupted_sampling_goes_on_and_gives_the_same(base, tmp_path, monkeypatch):
    few = [prompt for prompt in everyday.prompts() if not prompt.answer][:5]
    monkeypatch.setattr(answers_module, "prompts", lambda: few)
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    sample_answers(base, whole, SAMPLING, chunk=2, batch=4)
    lines = whole.read_text().splitlines(keepends=True)
    assert [json.loads(line)["prompt"] for line in lines] == [prompt.prompt for prompt in few]
    assert all(len(row["answers"]) + sum(row["rejected"].values()) == 2 for row in map(json.loads, lines))
    cut.write_text("".join(lines[:2]) + lines[2][:20])  # killed while it wrote
    sample_answers(base, cut, SAMPLING, chunk=2, batch=4)
    assert cut.read_bytes() == whole.read_bytes()
    assert sum(sample_answers(base, cut, SAMPLING).values()) == 0


def test_tags_are_never_sampled(base, tmp_path, monkeypatch):
    tags = astuple(ChatTokenizer.load(base).tags)
    drawn = []

    def judge(prompt, completions, tokenizer):
        drawn.extend(completions)
        return judged(prompt, completions, tokenizer)

    model, tokenizer = load_for_evaluation(base)
    model.get_output_embeddings().weight.data[list(tags)] = 50.0  # they would be nearly all that is sampled
    monkeypatch.setattr("lhrm_train.samplers.load_for_evaluation", lambda path: (model, tokenizer))
    monkeypatch.setattr(answers_module, "judged", judge)
    monkeypatch.setattr(
        answers_module, "prompts", lambda: [prompt for prompt in everyday.prompts() if not prompt.answer][:3]
    )
    sample_answers(base, tmp_path / "answers.jsonl", SAMPLING)
    assert len(drawn) == 6
    assert not {token for ids in drawn for token in ids} & set(tags)


def test_rows_of_other_settings_are_refused(base, tmp_path):
    out = tmp_path / "answers.jsonl"
    row = {"prompt": "hi", "answers": ["Hello!"], "rejected": {}, "sampling": asdict(SAMPLING)}
    out.write_text(json.dumps(row) + "\n")
    with pytest.raises(AnswersError, match="move the file away"):
        sample_answers(base, out, Sampling("another"))


def test_answers_are_read_each_once(tmp_path, monkeypatch):
    asked = [replace(everyday.prompts()[0], prompt=prompt, answer="") for prompt in ("hi", "bye")]
    monkeypatch.setattr(answers_module, "prompts", lambda: asked)
    out = tmp_path / "answers.jsonl"
    with pytest.raises(AnswersError, match="no such file; make it with"):
        read_answers(out)
    row = {"prompt": "hi", "answers": ["Hello!", "Hi.", "Hello!"], "rejected": {}, "sampling": {"seed": 3}}
    out.write_text(json.dumps(row) + "\n")
    with pytest.raises(AnswersError, match=r"1 of 2 prompts were not asked yet, the first 'bye'; go on with"):
        read_answers(out)
    out.write_text(json.dumps(row) + "\n" + json.dumps({**row, "prompt": "bye", "answers": []}) + "\n")
    assert read_answers(out) == ({"hi": ("Hello!", "Hi."), "bye": ()}, {"seed": 3})
    out.write_text(json.dumps(row) + "\n" + json.dumps({**row, "prompt": "bye", "sampling": {"seed": 4}}) + "\n")
    with pytest.raises(AnswersError, match=r"some were sampled with \{'seed': 3\}, some with \{'seed': 4\}"):
        read_answers(out)
    out.write_text('{"prompt": "hi"}\n')
    with pytest.raises(AnswersError, match=r"answers\.jsonl:1: KeyError\('answers'\)"):
        read_answers(out)
