import asyncio

import pytest
from gateway_fixtures import CALIBRATION, load_tokenizer, no_think, think
from lhrm_server.accounting import (
    Ending,
    Failure,
    Meter,
    ReasoningEnding,
    RequestFacts,
    Savings,
    TokenCounts,
    estimate_savings,
)
from lhrm_server.engine import EngineDeadError, EngineError, StopReason
from lhrm_server.parser import AnswerParser
from lhrm_server.policy import ModeDecision, Source, Wish

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
    return Meter(facts, CALIBRATION, clock or Clock())


def run(decision, ids, reason=StopReason.STOP, max_tokens=200):
    taken = meter(max_tokens=max_tokens)
    parser = AnswerParser(TOKENIZER, decision.mode)
    taken.engine_called()
    taken.decided(decision, parser)
    parser.feed(ids)
    taken.tokens_came()
    return taken.finish(reason)


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
        (EngineDeadError("x"), Ending.ERROR, Failure.ENGINE_DEAD),
        (ZeroDivisionError(), Ending.ERROR, Failure.INTERNAL),
    ],
)
def test_failures_keep_what_was_counted(exc, ended_by, failure):
    taken = meter()
    parser = AnswerParser(TOKENIZER, Mode.THINK)
    taken.decided(FORCED_THINK, parser)
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
    taken.decided(CHOSE_NO_THINK, AnswerParser(TOKENIZER, Mode.NO_THINK))
    record = taken.finish(StopReason.STOP)
    assert taken.close(GeneratorExit()) is record
    assert record.ended_by is Ending.STOP


def test_timings_with_a_clock():
    clock = Clock()
    taken = meter(clock)
    clock.now_ms += 3
    taken.engine_called()
    clock.now_ms += 10
    taken.decide_ended(1)
    parser = AnswerParser(TOKENIZER, Mode.THINK)
    taken.decided(CHOSE_THINK, parser)
    clock.now_ms += 20
    parser.feed((9,))
    taken.tokens_came()
    clock.now_ms += 30
    parser.feed((TOKENIZER.tags.think_end,))
    taken.tokens_came()
    clock.now_ms += 40
    parser.feed((9,))
    taken.tokens_came()
    clock.now_ms += 50
    parser.feed((END,))
    taken.tokens_came()
    record = taken.finish(StopReason.STOP)
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


def made(tokens, prompt=20):
    return TokenCounts(prompt, answer=tokens)


def test_savings_against_hand_computed_numbers():
    # The bin: always-think 60.4 tokens, 40.2 to 90.0.
    assert estimate_savings(CHOSE_NO_THINK, made(10), 200, CALIBRATION) == Savings(
        50, (30, 80), 0.9, 120, "calibration", "modelled", 60.4
    )


def test_the_opening_tag_does_not_move_a_prompt_into_the_next_bin():
    assert estimate_savings(CHOSE_NO_THINK, made(10, 200), 200, CALIBRATION) is not None


def test_savings_may_be_negative():
    found = estimate_savings(CHOSE_NO_THINK, made(100), 200, CALIBRATION)
    assert (found.tokens, found.interval) == (-40, (-60, -10))


def test_always_think_would_have_been_capped_too():
    found = estimate_savings(CHOSE_NO_THINK, made(10), 50, CALIBRATION)
    assert (found.tokens, found.interval, found.baseline_tokens) == (40, (30, 40), 50)


@pytest.mark.parametrize("calibration", [CALIBRATION, None])
def test_choosing_to_think_saves_exactly_nothing(calibration):
    found = estimate_savings(CHOSE_THINK, made(70), 200, calibration)
    assert (found.tokens, found.interval, found.baseline_tokens) == (0, (0, 0), 70)


@pytest.mark.parametrize(
    ("decision", "prompt", "calibration"),
    [
        (FORCED_THINK, 20, CALIBRATION),
        (ModeDecision(Mode.NO_THINK, Source.REQUEST), 20, CALIBRATION),
        (ModeDecision(Mode.NO_THINK, Source.POLICY), 20, CALIBRATION),
        (ModeDecision(Mode.NO_THINK, Source.MODEL, 0.4, 0.5, 1.0), 20, CALIBRATION),
        (CHOSE_NO_THINK, 201, CALIBRATION),
        (CHOSE_NO_THINK, 20, None),
    ],
)
def test_nothing_is_claimed_where_nothing_is_known(decision, prompt, calibration):
    assert estimate_savings(decision, made(10, prompt), 200, calibration) is None
