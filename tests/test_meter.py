"""What is taken down of a request and of its choices, and how their endings are named."""

import asyncio

import pytest
from gateway_fixtures import CALIBRATION, load_tokenizer, no_think, think
from lhrm_server.accounting import Ending, Failure, ReasoningEnding, RequestFacts, TokenCounts
from lhrm_server.answer_plan import AnswerPlan
from lhrm_server.control import Wish
from lhrm_server.engine import EngineDeadError, EngineError, RequestRefusedError, StopReason
from lhrm_server.meter import ChoiceMeter, Meter
from lhrm_server.parser import AnswerParser
from lhrm_server.policy import ModeDecision, Source

from lhrm_train.format import Mode

TOKENIZER = load_tokenizer()
END = TOKENIZER.turn_end_id
CHOSE_NO_THINK = ModeDecision(Mode.NO_THINK, Source.MODEL, 0.1, 0.5, 0.99)
CHOSE_THINK = ModeDecision(Mode.THINK, Source.MODEL, 0.8, 0.5, 0.99)
FORCED_THINK = ModeDecision(Mode.THINK, Source.REQUEST)


class Clock:
    """Milliseconds that pass when told to."""

    def __init__(self):
        self.now_ms = 5000.0

    def __call__(self):
        return self.now_ms / 1000


def meter(clock=None, max_tokens=200):
    facts = RequestFacts("r", "c", "m", False, Wish.AUTO, 20, max_tokens, 5.0)
    return Meter(facts, CALIBRATION, clock=clock or Clock())


def choice_of(taken, decision, index=0):
    """Begin a choice; return its meter and its parser."""
    parser = AnswerParser(TOKENIZER, decision.mode)
    choice = ChoiceMeter(index, decision.mode, parser, None, AnswerPlan())
    taken.choice(choice)
    return choice, parser


def run(decision, ids, reason=StopReason.STOP, max_tokens=200):
    taken = meter(max_tokens=max_tokens)
    taken.engine_called()
    taken.decided(decision)
    choice, parser = choice_of(taken, decision)
    parser.feed(ids)
    taken.tokens_came(answering=parser.answer_tokens > 0)
    choice.finish(reason)
    return taken.finish()


@pytest.mark.parametrize(
    ("decision", "ids", "reason", "ended_by", "reasoning", "missing"),
    [
        (CHOSE_THINK, think(TOKENIZER, "r", "a"), StopReason.STOP, Ending.STOP, ReasoningEnding.MODEL, None),
        (CHOSE_THINK, think(TOKENIZER, "r", ""), StopReason.STOP, Ending.STOP, ReasoningEnding.MODEL, "empty"),
        (CHOSE_THINK, (9, END), StopReason.STOP, Ending.STOP, ReasoningEnding.EOS, "eos"),
        (CHOSE_THINK, (9,), StopReason.LENGTH, Ending.LENGTH, ReasoningEnding.LENGTH, "length"),
        (
            CHOSE_THINK,
            (9, TOKENIZER.tags.think_end),
            StopReason.LENGTH,
            Ending.LENGTH,
            ReasoningEnding.MODEL,
            "length",
        ),
        (
            CHOSE_THINK,
            (9, TOKENIZER.tags.think_end, 9),
            StopReason.LENGTH,
            Ending.LENGTH,
            ReasoningEnding.MODEL,
            None,
        ),
        (CHOSE_NO_THINK, no_think(TOKENIZER, "a"), StopReason.STOP, Ending.STOP, None, None),
        (CHOSE_NO_THINK, no_think(TOKENIZER, ""), StopReason.STOP, Ending.STOP, None, "empty"),
        (CHOSE_NO_THINK, (END,), StopReason.STOP, Ending.STOP, None, "empty"),
        (CHOSE_NO_THINK, (9,), StopReason.LENGTH, Ending.LENGTH, None, None),
    ],
)
def test_endings(decision, ids, reason, ended_by, reasoning, missing):
    record = run(decision, ids, reason)
    assert (record.ended_by, record.reasoning_ended_by, record.answer_missing) == (ended_by, reasoning, missing)
    assert record.counts.completion == len(ids)
    assert record.failure is None


@pytest.mark.parametrize(
    ("exc", "ended_by", "failure"),
    [
        (asyncio.CancelledError(), Ending.ABORT, None),
        (GeneratorExit(), Ending.ABORT, None),
        (EngineError("x"), Ending.ERROR, Failure.REQUEST),
        (RequestRefusedError("x"), Ending.ERROR, Failure.REFUSED),
        (EngineDeadError("x"), Ending.ERROR, Failure.ENGINE_DEAD),
        (ZeroDivisionError(), Ending.ERROR, Failure.INTERNAL),
    ],
)
def test_failures_keep_what_was_counted(exc, ended_by, failure):
    taken = meter()
    taken.decided(FORCED_THINK)
    _, parser = choice_of(taken, FORCED_THINK)
    parser.feed((9, 9))
    record = taken.close(exc)
    assert (record.ended_by, record.failure) == (ended_by, failure)
    assert record.reasoning_ended_by is ReasoningEnding(ended_by.value)
    assert record.counts == TokenCounts(20, reasoning=2)
    assert record.savings is record.answer_missing is None
    assert taken.close(ZeroDivisionError()) is record


def test_failure_before_the_decision():
    record = meter().close(EngineError("x"))
    assert record.decision is record.reasoning_ended_by is None
    assert record.counts == TokenCounts(20)


def test_a_finished_request_stays_finished():
    taken = meter()
    taken.decided(CHOSE_NO_THINK)
    choice, _ = choice_of(taken, CHOSE_NO_THINK)
    choice.finish(StopReason.STOP)
    record = taken.finish()
    assert taken.close(GeneratorExit()) is record
    assert record.ended_by is Ending.STOP


def test_timings_with_a_clock():
    clock = Clock()
    taken = meter(clock)
    clock.now_ms += 3
    taken.engine_called()
    clock.now_ms += 10
    taken.decide_ended(1)
    taken.decided(CHOSE_THINK)
    choice, parser = choice_of(taken, CHOSE_THINK)
    clock.now_ms += 20
    parser.feed((9,))
    taken.tokens_came(answering=parser.answer_tokens > 0)
    clock.now_ms += 30
    parser.feed((TOKENIZER.tags.think_end,))
    taken.tokens_came(answering=parser.answer_tokens > 0)
    clock.now_ms += 40
    parser.feed((9,))
    taken.tokens_came(answering=parser.answer_tokens > 0)
    clock.now_ms += 50
    parser.feed((END,))
    taken.tokens_came(answering=parser.answer_tokens > 0)
    choice.finish(StopReason.STOP)
    record = taken.finish()
    timing = record.latency
    assert timing.queue_ms == pytest.approx(3)
    assert timing.decide_ms == pytest.approx(10)
    assert timing.first_token_ms == pytest.approx(33)
    assert timing.first_answer_token_ms == pytest.approx(103)
    assert timing.total_ms == pytest.approx(153)
    assert record.counts == TokenCounts(20, reasoning=1, answer=1, overhead=2, decide=1)


def test_low_tag_mass_is_an_anomaly():
    decision = ModeDecision(Mode.NO_THINK, Source.MODEL, 0.1, 0.5, 0.4)
    assert run(decision, no_think(TOKENIZER, "a")).anomalies == ("no_mode_token",)
    assert run(CHOSE_NO_THINK, no_think(TOKENIZER, "a")).anomalies == ()


def test_choices_are_summed_and_the_first_one_gives_the_endings():
    taken = meter()
    taken.decided(CHOSE_THINK)
    taken.decide_ended(1)
    first, parser = choice_of(taken, CHOSE_THINK, 0)
    parser.feed(think(TOKENIZER, "abc", "d"))
    second, other = choice_of(taken, CHOSE_THINK, 1)
    other.feed((9, 9, END))
    assert second.finish(StopReason.STOP).answer_missing == "eos"
    first.finish(StopReason.STOP)
    record = taken.finish()
    lengths = len(TOKENIZER.encode_text("abc")), len(TOKENIZER.encode_text("d"))
    assert record.counts == TokenCounts(20, reasoning=lengths[0] + 2, answer=lengths[1], overhead=3, decide=1)
    assert [(c.index, c.reasoning, c.overhead) for c in record.choices] == [(0, lengths[0], 2), (1, 2, 1)]
    assert (record.ended_by, record.reasoning_ended_by, record.answer_missing) == (
        Ending.STOP,
        ReasoningEnding.MODEL,
        None,
    )
    assert record.anomalies == ("unclosed",)


def test_an_aborted_request_keeps_the_ending_of_a_choice_that_had_finished():
    taken = meter()
    taken.decided(CHOSE_THINK)
    first, parser = choice_of(taken, CHOSE_THINK, 0)
    choice_of(taken, CHOSE_THINK, 1)
    parser.feed(think(TOKENIZER, "r", "a"))
    first.finish(StopReason.STOP)
    record = taken.close(GeneratorExit())
    assert record.ended_by is Ending.ABORT
    assert [choice.ended_by for choice in record.choices] == [Ending.STOP, Ending.ABORT]


def test_the_counts_of_a_retry_are_added_and_it_is_marked():
    taken = meter()
    taken.decided(FORCED_THINK)
    choice, parser = choice_of(taken, FORCED_THINK)
    parser.feed((9, END))
    again = AnswerParser(TOKENIZER, Mode.NO_THINK)
    choice.retried(again)
    again.feed(no_think(TOKENIZER, "a"))
    record = choice.finish(StopReason.STOP)
    assert (record.reasoning, record.answer, record.overhead) == (1, 1, 3)
    assert (record.reasoning_ended_by, record.answer_retried, record.answer_missing) == (
        ReasoningEnding.EOS,
        True,
        None,
    )
    assert record.anomalies == ("unclosed",)


def test_a_forced_end_of_the_reasoning_is_its_budget():
    choice, parser = choice_of(meter(), FORCED_THINK)
    parser.feed((9, TOKENIZER.tags.think_end))
    choice.closed_by_force()
    record = choice.finish(StopReason.LENGTH)
    assert (record.reasoning_ended_by, record.ended_by) == (ReasoningEnding.BUDGET, Ending.LENGTH)
