import json
from collections import Counter

import pytest

from lhrm_train.config import DataConfig, load_config
from lhrm_train.dry_run import dry_run
from lhrm_train.format import ChatTokenizer, Mode
from lhrm_train.hygiene import clean, decontaminate
from lhrm_train.init import init_base
from lhrm_train.rewards import Judge
from lhrm_train.smol import everyday
from lhrm_train.smol.answers import AnswersError
from lhrm_train.smol.data import CHAT_KIND, CHAT_SCORER, FILES, counts, write_data
from lhrm_train.smol.items import KINDS
from lhrm_train.smol.mixture import SYSTEM_MESSAGES, Mixture
from lhrm_train.smol.table import data_table, total_tokens
from lhrm_train.sources import read_demonstrations, read_problems
from tests.bases import llama_tied, save_base

SCALE = 0.03
pytestmark = pytest.mark.usefixtures("reasoning_gym")  # some of the questions are its own


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    path = tmp_path_factory.mktemp("smol-answers") / "answers.jsonl"
    rows = [
        {"prompt": p.prompt, "answers": [f"Answer {i} to it.", "Well."], "rejected": {}, "sampling": {}}
        for i, p in enumerate(everyday.prompts())
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory, answers):
    out = tmp_path_factory.mktemp("smol-data")
    return out, write_data(out, answers, scale=SCALE)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smol-base")
    model, fast = llama_tied()
    model.config.max_position_embeddings = 4096  # its tokenizer makes many tokens of a word
    return init_base(str(save_base(folder / "raw", model, fast)), folder / "base", "tiny")


def source(out, *names):
    return DataConfig(source="jsonl", files=tuple(str(out / f"{name}.jsonl") for name in names))


def test_all_files_are_written_the_same_again(written, answers, tmp_path):
    out, made = written
    assert set(made) == set(FILES)
    again = write_data(tmp_path, answers, scale=SCALE)
    assert again == made
    for name in FILES:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (out / f"{name}.jsonl").read_bytes()
    assert write_data(tmp_path, answers, seed=7, scale=SCALE) != made


def test_demonstrations_are_read_without_loss(written):
    out, made = written
    read = read_demonstrations(source(out, "hft"))
    kept, report = clean(read, source(out, "hft"))
    assert len(read) == len(made["hft"])
    # An everyday answer that comes again counts where another conversation is around it.
    questions = [one for one in read if one.problem.kind != CHAT_KIND]
    assert clean(questions, source(out, "hft"))[1].duplicates <= 0.01 * len(questions)
    assert len(read) - len(questions) > report.duplicates
    modes = Counter(one.mode for one in kept)
    mixture = Mixture().scaled(SCALE)
    assert modes[Mode.THINK] >= mixture.think * 0.99
    assert modes[Mode.NO_THINK] > mixture.direct
    assert {one.problem.kind for one in kept} == {*KINDS, CHAT_KIND}


def test_direct_answers_are_to_easy_questions_and_hard_ones_get_reasoning(written):
    _, made = written
    levels = counts((row for row in made["hft"] if row["kind"] != CHAT_KIND), "mode", "level")
    assert {key for key in levels if key[0] == "no_think"} == {("no_think", 1), ("no_think", 2)}
    assert {key for key in levels if key[0] == "think"} == {("think", level) for level in (1, 2, 3, 4)}
    hard = levels["think", 3] + levels["think", 4]
    assert hard > levels["think", 1] + levels["think", 2]


def test_one_question_is_seldom_shown_in_both_modes(written):
    _, made = written
    questions = [row for row in made["hft"] if row["kind"] != CHAT_KIND]
    shown = {
        mode: {r["messages"][-1]["content"] for r in questions if r["mode"] == mode} for mode in ("think", "no_think")
    }
    assert len(shown["think"] & shown["no_think"]) < 0.1 * len(shown["no_think"])


def test_chat_is_mostly_direct(written):
    _, made = written
    modes = counts((row for row in made["hft"] if row["kind"] == CHAT_KIND), "mode")
    assert 0.02 < modes["think",] / (modes["think",] + modes["no_think",]) < 0.1
    assert sum(row["answer"] == everyday.WHO for row in made["hft"]) > 8


def test_no_test_question_is_in_training(written):
    out, _ = written
    held = read_problems(source(out, "test", "test-chat"))
    for name in ("prompts", "hft"):
        read = read_problems(source(out, name))
        assert decontaminate(read, held, 40)[1] == 0
    validation = {problem.question for problem in read_problems(source(out, "validation"))}
    assert not validation & {problem.question for problem in held}


def test_every_reference_is_right_by_its_own_scorer(written, base):
    out, _ = written
    problems = read_problems(source(out, "prompts", "test", "validation"))
    judge = Judge(ChatTokenizer.load(base), load_config("smol").reward)
    judge.check(problems)
    asked = [problem for problem in problems if problem.kind != CHAT_KIND]
    for problem in asked:
        assert judge.judge_text(problem, Mode.NO_THINK, problem.reference, 1, True).score == 1.0
    chat = [problem for problem in problems if problem.kind == CHAT_KIND]
    assert {problem.scorer for problem in chat} == {CHAT_SCORER}
    assert len(chat) == round(Mixture().scaled(SCALE).problems * Mixture().chat_share)


def test_a_chat_prompt_that_comes_again_is_no_duplicate(tmp_path, answers, monkeypatch):
    few = everyday.prompts_of("train")[:30]
    monkeypatch.setattr("lhrm_train.smol.data.prompts_of", lambda split: few)
    made = write_data(tmp_path, answers, scale=SCALE)["prompts"]
    chat = [row for row in made if row["kind"] == CHAT_KIND]
    assert len(chat) == 58
    kept, _ = clean(read_problems(source(tmp_path, "prompts")), source(tmp_path, "prompts"))
    assert sum(problem.kind == CHAT_KIND for problem in kept) > 50


def test_some_questions_stand_in_a_conversation(written):
    _, made = written
    roles = Counter(tuple(message["role"] for message in row["messages"]) for row in made["hft"])
    bare = roles[("user",)] / len(made["hft"])
    assert 0.65 < bare < 0.9
    assert any(len(key) >= 3 for key in roles)
    systems = {r["messages"][0]["content"] for r in made["hft"] if r["messages"][0]["role"] == "system"}
    assert systems == set(SYSTEM_MESSAGES)


def test_held_out_answers_belong_to_prompts_that_nothing_trains_on(written):
    _, made = written
    trained = {prompt.prompt for prompt in everyday.prompts_of("train")}
    assert len(made["held-out-answers"]) > 200
    assert not trained & {row["prompt"] for row in made["held-out-answers"]}


def test_the_table_counts_rows_and_tokens(written, base):
    _, made = written
    tokenizer = ChatTokenizer.load(base)
    table = data_table({"test": made["test"][:2]}, tokenizer)
    assert table.splitlines()[-1].startswith("| **test** | all | all | 2 | ")
    row = {
        "messages": [{"role": "user", "content": "a"}],
        "reasoning": "b",
        "answer": "c d",
        "level": 0,
        "mode": "think",
    }
    lengths = [len(tokenizer.encode_text(text)) for text in ("b", "c d")]
    assert total_tokens([row], tokenizer) - sum(lengths) == total_tokens(
        [{**row, "reasoning": "", "answer": ""}], tokenizer
    )
    assert (
        f"| x | think | everyday | 1 | {total_tokens([row], tokenizer) - sum(lengths)} | {lengths[0]} |"
        in data_table({"x": [row]}, tokenizer)
    )


def test_without_answers_there_is_no_data(tmp_path):
    with pytest.raises(AnswersError, match=r"python -m lhrm_train\.smol answers"):
        write_data(tmp_path, tmp_path / "none.jsonl")


@pytest.mark.parametrize("recipe", ["smol", "smol-cpu"])
def test_the_recipe_builds_on_the_files(written, base, recipe):
    out, _ = written
    overrides = [f"base.path={base}", "hft.row_length=2048", "hgpo.row_length=2048"]
    for place, name in (("data", "hft"), ("prompts", "prompts"), ("test", "test")):
        overrides.append(f'{place}.files=["{out / name}.jsonl"]')
    for place in ("data", "prompts"):
        overrides.append(f'{place}.decontaminate=["{out}/test.jsonl", "{out}/test-chat.jsonl"]')
    said = dry_run(load_config(recipe, overrides))
    assert "contaminated=0" in said
    assert "0 prompts too long" in said
