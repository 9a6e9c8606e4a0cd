"""The bars that lhrm-smol is held against, each beside what was measured."""

from __future__ import annotations

from dataclasses import replace

from lhrm_train.bars import Bar, at_least, at_most, points
from lhrm_train.report import RANDOM_HACC, Summary, shown
from lhrm_train.smol.evaluation import EVERYDAY, GYM, GYM_OTHER, TEST
from lhrm_train.smol.measured import HARD_LEVEL, Measured
from lhrm_train.smol.questions.base import KNOWN_LEVEL

HARD_GAIN = 0.20  # forced think over forced no-think
FREE_LOSS = 0.02  # free choice below always-think
TOKENS = 0.50  # of always-think's, on questions with a right answer
HACC = 0.85
EVERYDAY_NO_THINK = 0.95
PERPLEXITY_RATIO = 1.10


def bars(measured: Measured) -> list[Bar]:
    """Return every bar with what the rows and perplexities say. Raises ConfigError for a set without usable rows."""
    test, gym, everyday = (measured.summary(name) for name in (TEST, GYM, EVERYDAY))
    hard = measured.summary(TEST, measured.hard)
    unseen = "unseen questions of the trained tasks of reasoning-gym"
    questions = {"held-out questions": test, unseen: gym}
    gained = {f"held-out questions, levels {HARD_LEVEL} and up": hard, f"{unseen}, which have no levels": gym}
    beside = {
        f"held-out questions, levels {KNOWN_LEVEL + 1} and up, beside": measured.summary(TEST, measured.unknown),
        "other tasks of reasoning-gym, beside": measured.summary(GYM_OTHER),
    }
    kept = 1 - everyday.think_rate
    ratio = measured.perplexity.ratio
    return [
        *(_gain(name, part) for name, part in gained.items()),
        *(_loss(name, part) for name, part in questions.items()),
        *(_beside(_loss(name, part)) for name, part in beside.items()),
        *(_tokens(name, part) for name, part in questions.items()),
        *(_beside(_tokens(name, part)) for name, part in {**beside, "everyday prompts, beside": everyday}.items()),
        *(_hacc(name, part) for name, part in questions.items()),
        *(_beside(_hacc(name, part)) for name, part in beside.items()),
        Bar(
            "answered without thinking",
            "everyday prompts",
            f"at least {EVERYDAY_NO_THINK:.0%}",
            shown(kept, ".2%"),
            at_least(kept, EVERYDAY_NO_THINK),
        ),
        Bar(
            "perplexity, times the base's",
            "held-out answers of the base",
            f"at most {PERPLEXITY_RATIO:.2f}",
            shown(ratio, ".4f"),
            at_most(ratio, PERPLEXITY_RATIO),
        ),
    ]


def _beside(bar: Bar) -> Bar:
    """Show what a bar measures where nothing is required."""
    return replace(bar, required="-", met=None)


def _gain(name: str, part: Summary) -> Bar:
    value = part.accuracy_think - part.accuracy_no_think
    required = f"at least {100 * HARD_GAIN:.0f} points"
    return Bar("forced think minus forced no-think", name, required, points(value), at_least(value, HARD_GAIN))


def _loss(name: str, part: Summary) -> Bar:
    value = part.accuracy_free - part.accuracy_think
    required = f"at least {-100 * FREE_LOSS:.0f} points"
    return Bar("free choice minus always-think", name, required, points(value), at_least(value, -FREE_LOSS))


def _tokens(name: str, part: Summary) -> Bar:
    value, what = 1 - part.cut, "completion tokens of the free choice, share of always-think's"
    return Bar(what, name, f"at most {TOKENS:.0%}", shown(value, ".2%"), at_most(value, TOKENS))


def _hacc(name: str, part: Summary) -> Bar:
    baselines = ", ".join(
        f"{policy} {shown(value, '.3f')}"
        for policy, value in (
            ("always-think", part.hacc_always_think),
            ("always-no-think", part.hacc_always_no_think),
            ("random", RANDOM_HACC),
        )
    )
    text = f"{shown(part.hacc, '.4f')} ({baselines})"
    return Bar("Hybrid Accuracy", name, f"at least {HACC}", text, at_least(part.hacc, HACC))
