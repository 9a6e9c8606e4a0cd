import itertools
from collections import Counter
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lhrm_train.config import HFTConfig
from lhrm_train.format import Message, Mode, TagIds
from lhrm_train.mixture import Mixture, MixtureReport, encode
from lhrm_train.problems import Demonstration, Problem
from lhrm_train.sources import DataError, question_key

THINK, NO_THINK = Mode.THINK, Mode.NO_THINK
FIRST_ANSWER = 1000


class OneIdPerCharacter:
    """Stands in for a tokenizer: a character is one id, a piece of the template is one id."""

    manifest = SimpleNamespace(turn_start="<", turn_end=">")
    tags = TagIds(think=1, think_end=2, no_think=3, no_think_end=4)
    turn_end_id = 5
    prefix_ids = ()

    def encode_text(self, text):
        return [ord(character) for character in text]

    def encode_template(self, text):
        return [6]


TOKENIZER = OneIdPerCharacter()


def demonstration(number, mode, question="", reasoning=1, prompt=1):
    """Sample `number`, told by its one-letter answer; prompt + 3 ids, then 1 + reasoning + 3 or 1 + 1 + 2 ids."""
    messages = (Message("user", "q" * prompt),)
    problem = Problem(messages, key=question or f"question {number}")
    return Demonstration(problem, mode, "r" * reasoning if mode is THINK else "", chr(FIRST_ANSWER + number))


def demonstrations(modes, questions=""):
    return [
        demonstration(number, THINK if mode == "t" else NO_THINK, question)
        for number, (mode, question) in enumerate(itertools.zip_longest(modes, questions, fillvalue=""))
    ]


def mixture(shown, seed=0, total=0, **settings):
    return Mixture(shown, TOKENIZER, HFTConfig(**{"rows": 4, "row_length": 16, **settings}), seed, total)


def seen(batch):
    """Return the numbers of the samples in a batch."""
    return [target - FIRST_ANSWER for target in batch.target_M.tolist() if target >= FIRST_ANSWER]


def seen_in(mixed, count, start=0):
    return [seen(batch) for batch in itertools.islice(mixed.batches(start), count)]


def modes_of(batch):
    return {THINK if tag == 1 else NO_THINK for tag in batch.target_M[batch.decision_M].tolist()}


def test_encoding_with_a_real_tokenizer(nano_tokenizer):
    problem = Problem((Message("system", "Be brief."), Message("user", "2+3?")))
    sample = encode(nano_tokenizer, Demonstration(problem, THINK, "2 and 3", "5"))
    assert nano_tokenizer.decode(sample.prompt_ids) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2+3?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert nano_tokenizer.decode(sample.completion_ids) == "<think>2 and 3</think>5<|im_end|>"
    sample = encode(nano_tokenizer, Demonstration(problem, NO_THINK, "", "5"))
    assert nano_tokenizer.decode(sample.completion_ids) == "<no_think>5</no_think><|im_end|>"


def test_what_is_left_out_is_counted():
    shown = [
        demonstration(0, THINK, reasoning=8),  # 4 + 12 = 16 ids: the row is just long enough
        demonstration(1, THINK, reasoning=9),  # 17
        demonstration(2, NO_THINK, prompt=9),  # 12 + 4 = 16
        demonstration(3, NO_THINK, prompt=10),  # 17
        Demonstration(Problem((Message("user", "q"),)), NO_THINK, "", chr(1004) + "ab"),  # 3 + 2 ids behind the tag
        Demonstration(Problem((Message("user", "q"),)), NO_THINK, "", chr(1005) + "abc"),  # 4 + 2
    ]
    mixed = mixture(shown, no_think_max_tokens=5, think_share=0.0)
    assert mixed.report == MixtureReport(think=1, no_think=2, too_long=2, over_no_think_max_tokens=1)
    assert set(seen_in(mixed, 1)[0]) == {0, 2, 4}
    assert mixture(shown, think_share=0.0).report == MixtureReport(1, 3, 2, 0)


@pytest.mark.parametrize(
    ("share", "think", "no_think"),
    [(0.5, 6, 6), (0.75, 6, 2), (0.2, 3, 12), (1 / 3, 6, 12), (0.6, 6, 4), (0.99, 6, 1), (0.01, 1, 12)],
)
def test_shares_by_hand(share, think, no_think):
    mixed = mixture(demonstrations("t" * 6 + "n" * 12), think_share=share)
    order = mixed.pass_order(0)
    assert len(set(order)) == len(order)
    assert (sum(i < 6 for i in order), sum(i >= 6 for i in order)) == (think, no_think)


def test_modes_are_interleaved():
    def pattern(shown, share):
        return "".join(shown[i] for i in mixture(demonstrations(shown), think_share=share).pass_order(3))

    # Places of one think sample: 1/2; of three no-think samples: 1/6, 1/2, 5/6.
    assert pattern("tnnn", 0.25) == "ntnn"
    assert pattern("ttnn", 0.5) == "tntn"
    assert pattern("ttttnn", 0.5) == "tntn"
    # Think at 1/8, 3/8, 5/8, 7/8, no-think at 1/4, 3/4.
    assert pattern("nnttttt", 2 / 3) == "tnttnt"


@pytest.mark.parametrize(("larger", "smaller"), ["tn", "nt"])
def test_the_larger_side_is_drawn_anew_on_every_pass(larger, smaller):
    mixed = mixture(demonstrations(larger * 10 + smaller * 2), think_share=0.5)
    passes = [frozenset(i for i in mixed.pass_order(number) if i < 10) for number in range(40)]
    assert {len(chosen) for chosen in passes} == {2}
    assert len(set(passes)) > 10
    assert frozenset.union(*passes) == frozenset(range(10))


def test_a_question_in_both_modes_is_seen_in_one_mode_per_pass():
    # Questions a, b, c, d have both modes, c twice in think; x and y have one.
    shown = demonstrations("tntnttntntn", "aabbcccddxy")
    mixed = mixture(shown, think_share=0.0)
    mode_by_pass = []
    for number in range(4):
        order = mixed.pass_order(number)
        modes = {key: {shown[i].mode for i in order if shown[i].problem.key == key} for key in "abcdxy"}
        assert all(len(found) == 1 for found in modes.values())
        mode_by_pass.append({key: found.pop() for key, found in modes.items()})
        assert (4 in order) == (5 in order) == (mode_by_pass[-1]["c"] is THINK)
    assert mode_by_pass[0] == mode_by_pass[2]
    assert mode_by_pass[1] == mode_by_pass[3]
    assert all(mode_by_pass[0][key] is not mode_by_pass[1][key] for key in "abcd")
    assert Counter(mode_by_pass[0][key] for key in "abcd") == {THINK: 2, NO_THINK: 2}
    assert [mode_by_pass[number][key] for number in range(2) for key in "xy"] == [THINK, NO_THINK] * 2
    assert sorted(mixed.pass_order(0) + mixed.pass_order(1)) == sorted([*range(11), 9, 10])


def test_the_seed_says_which_mode_comes_first():
    shown = demonstrations("tn" * 10, [str(i // 2) for i in range(20)])
    assert len({frozenset(mixture(shown, seed, think_share=0.0).pass_order(0)) for seed in range(5)}) == 5


def test_paired_questions_are_seen_in_both_modes():
    mixed = mixture(demonstrations("tntn", "aabb"), think_share=0.5, pairing="paired")
    assert sorted(mixed.pass_order(0)) == [0, 1, 2, 3]


def test_a_question_without_a_key_is_told_by_its_text():
    def bare(mode, question):
        return Demonstration(Problem((Message("user", question),)), mode, "r" if mode is THINK else "", "a")

    shown = [bare(mode, question) for question in ("What?", "Who?") for mode in Mode]
    assert len(mixture(shown, think_share=0.0).pass_order(0)) == 2
    named = Problem((Message("user", "other"),), key=question_key(shown[0].problem.messages))
    assert len(mixture([shown[0], Demonstration(named, NO_THINK, "", "a")], think_share=0.0).pass_order(0)) == 1


@given(st.text("tn", max_size=38).map("tn".__add__), st.integers(0, 3), st.integers(0, 99))
def test_every_kept_sample_is_seen_once_per_pass(modes, number, seed):
    questions = [str(i % 7) for i in range(len(modes))]
    mixed = mixture(demonstrations(modes, questions), seed, think_share=0.0, pairing="paired")
    assert sorted(mixed.pass_order(number)) == list(range(len(modes)))
    rows = list(mixed.pass_rows(number))
    assert sorted(i for row in rows for i in row) == list(range(len(modes)))


@given(st.integers(2, 50), st.sampled_from(["pack", "bucket"]), st.integers(1, 5))
def test_the_steps_of_a_pass_hold_every_sample_once(count, batching, rows):
    settings = {"batching": batching, "rows": rows, "think_share": 0.0, "pairing": "paired"}
    mixed = mixture(demonstrations("tn" * (count // 2) + "t" * (count % 2)), **settings)
    taken = Counter(itertools.chain.from_iterable(seen_in(mixed, mixed.steps_per_pass())))
    assert set(taken) == set(range(count))
    # The last batch is filled up from the passes after it.
    capacity = rows * (2 if batching == "pack" else 1)
    assert sum(taken.values()) - count < capacity


def test_packed_batches_have_full_shape():
    # A think sample is 4 + 5 ids, a no-think one 4 + 4, so that two no-think fit a row of 16 and two think do not.
    mixed = mixture(demonstrations("ttttnnnnnnnn"), think_share=1 / 3)
    assert mixed.steps_per_pass() == 2
    batches = list(itertools.islice(mixed.batches(), 4))
    assert [tuple(batch.input_BT.shape) for batch in batches] == [(4, 16)] * 4
    for first in (0, 2):
        assert sorted(seen(batches[first]) + seen(batches[first + 1])) == list(range(12))


def test_buckets_hold_rows_of_like_length():
    lengths = [5, 1, 6, 2, 7, 3, 8, 4]  # 8 ids more in all
    shown = [
        demonstration(number, *((NO_THINK, "", 0, length + 1) if number % 2 else (THINK, "", length)))
        for number, length in enumerate(lengths)
    ]
    mixed = mixture(shown, rows=2, batching="bucket", think_share=0.0)
    assert mixed.steps_per_pass() == 4
    batches = list(itertools.islice(mixed.batches(), 8))
    for first in (0, 4):
        found = {(tuple(sorted(lengths[i] for i in seen(batch)))): batch for batch in batches[first : first + 4]}
        assert set(found) == {(1, 2), (3, 4), (5, 6), (7, 8)}
        assert {pair: tuple(batch.input_BT.shape) for pair, batch in found.items()} == {
            (1, 2): (2, 10),
            (3, 4): (2, 12),
            (5, 6): (2, 14),
            (7, 8): (2, 16),
        }
    widths = [[batch.input_BT.shape[1] for batch in batches[first : first + 4]] for first in (0, 4)]
    assert any(found != sorted(found) for found in widths)


def test_a_bucket_that_runs_over_the_end_of_a_pass():
    # Ten samples in batches of four: three batches hold the first pass and two of the second, five hold both.
    mixed = mixture(demonstrations("tn" * 5), batching="bucket", think_share=0.0)
    taken = seen_in(mixed, 10)
    assert {len(found) for found in taken} == {4}
    first = Counter(itertools.chain.from_iterable(taken[:3]))
    assert sorted(first.values()) == [1] * 8 + [2] * 2
    assert set(Counter(itertools.chain.from_iterable(taken[:5])).values()) == {2}
    assert set(Counter(itertools.chain.from_iterable(taken)).values()) == {4}


@pytest.mark.parametrize("batching", ["pack", "bucket"])
def test_fewer_samples_than_rows(batching):
    mixed = mixture(demonstrations("tn"), batching=batching, think_share=0.0)
    assert [sorted(found) for found in seen_in(mixed, 2)] == [[0, 0, 1, 1]] * 2  # 9 and 8 ids: no row of 16 for both
    assert mixed.steps_per_pass() == 1


def think_only_batches(mixed, count):
    return [modes_of(batch) == {THINK} for batch in itertools.islice(mixed.batches(), count)]


@pytest.mark.parametrize("batching", ["pack", "bucket"])
@pytest.mark.parametrize(
    ("settings", "total", "first"),
    [
        ({"steps": 10}, 0, 3),
        ({"steps": 3, "accumulation": 4}, 0, 4),  # 0.3 of 12 is 3.6
        ({"steps": 3}, 20, 6),
        ({"epochs": 4.0}, 0, None),
        ({"steps": 10, "think_first_share": 0.0}, 0, 0),
    ],
)
def test_think_comes_first_for_its_share_of_the_steps(batching, settings, total, first):
    shown = demonstrations("tn" * 16)
    mixed = mixture(shown, 1, total, **{"think_first_share": 0.3, "batching": batching, **settings})
    if first is None:
        # Pack: 16 think rows and 8 of two no-think samples; bucket: 32 rows. Rows come in batches of four.
        assert mixed.steps_per_pass() == (6 if batching == "pack" else 8)
        first = 7 if batching == "pack" else 10  # 0.3 of 24 and of 32
    assert sum(think_only_batches(mixed, first)) == first
    # Then the mixed passes begin.
    per_pass = mixed.steps_per_pass()
    after = Counter(itertools.chain.from_iterable(seen_in(mixed, per_pass, first)))
    assert after == Counter(range(32))


def test_think_samples_of_the_first_phase_come_once_per_pass():
    shown = demonstrations("tn" * 16, [f"{i // 2}" for i in range(32)])
    mixed = mixture(shown, steps=20, think_first_share=0.5)
    # Whatever the pairing: all 16 think samples, one per row.
    assert Counter(itertools.chain.from_iterable(seen_in(mixed, 4))) == Counter(range(0, 32, 2))


def same(left, right):
    return all(torch.equal(getattr(left, field.name), getattr(right, field.name)) for field in fields(left))


@pytest.mark.parametrize("batching", ["pack", "bucket"])
@pytest.mark.parametrize("think_first", [0.0, 0.4])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_resumed_run_sees_the_same_batches(batching, think_first, share):
    settings = {"batching": batching, "think_first_share": think_first, "think_share": share, "steps": 24}
    shown = demonstrations("ttn" * 15, [str(i % 20) for i in range(45)])
    whole = list(itertools.islice(mixture(shown, 7, **settings).batches(), 24))
    for start in (0, 1, 9, 10, 17, 23):
        resumed = list(itertools.islice(mixture(shown, 7, **settings).batches(start), 24 - start))
        assert all(same(*pair) for pair in zip(resumed, whole[start:], strict=True))
    other = list(itertools.islice(mixture(shown, 8, **settings).batches(), 24))
    assert not any(same(*pair) for pair in zip(other, whole, strict=True))


@pytest.mark.parametrize("batching", ["pack", "bucket"])
def test_processes_share_the_batches_and_build_only_their_own(batching, monkeypatch):
    shown = demonstrations("ttn" * 15)
    whole = list(itertools.islice(mixture(shown, batching=batching).batches(), 14))
    built = []
    collate = Mixture._collate
    monkeypatch.setattr(Mixture, "_collate", lambda self, layout: built.append(1) or collate(self, layout))
    for rank in range(3):
        mine = list(itertools.islice(mixture(shown, batching=batching).batches(2 + rank, 3), 4))
        assert all(same(*pair) for pair in zip(mine, whole[2 + rank :: 3], strict=True))
    assert len(built) == 12


def test_passes_differ():
    mixed = mixture(demonstrations("tn" * 10), think_share=0.0)
    assert len({tuple(mixed.pass_order(number)) for number in range(5)}) == 5
    assert mixed.pass_order(3) == mixed.pass_order(3)


@pytest.mark.parametrize(
    ("modes", "settings", "message"),
    [
        ("", {"think_share": 0.0}, r"no sample is left to train on: MixtureReport\(think=0"),
        ("tn", {"row_length": 3}, r"no sample is left to train on: .*too_long=2"),
        ("ttt", {}, r"HFT learns both modes, and only one has samples: MixtureReport\(think=3, no_think=0"),
        ("tnn", {"no_think_max_tokens": 1}, r"only one has samples: .*over_no_think_max_tokens=2"),
        ("nn", {"think_share": 0.0}, "only one has samples"),
        ("tt", {"think_share": 0.0, "think_first_share": 0.5}, "only one has samples"),
    ],
)
def test_a_mixture_that_cannot_be_made(modes, settings, message):
    with pytest.raises(DataError, match=message):
        mixture(demonstrations(modes), **settings)


def test_too_few_questions_to_alternate():
    shown = demonstrations("tn", "aa")
    with pytest.raises(DataError, match="use 'paired'"):
        mixture(shown)
    for mode in "tn":  # one of the two lacks a mode in even passes, the other in odd ones
        with pytest.raises(DataError, match="use 'paired'"):
            mixture(demonstrations("tn" + mode, "aab"))
    assert len(mixture(shown, pairing="paired").pass_order(0)) == 2
    # As the data has it: one mode per pass.
    assert [len(mixture(shown, think_share=0.0).pass_order(number)) for number in range(2)] == [1, 1]
