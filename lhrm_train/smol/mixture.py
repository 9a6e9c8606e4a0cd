"""The mixture of lhrm-smol's data: every count and share in one place."""

from __future__ import annotations

from dataclasses import dataclass, replace

Levels = tuple[float, float, float, float]  # weights of the levels 1 to 4

SEED = 6


@dataclass(frozen=True)
class Mixture:
    """Numbers of questions per file, their levels by weight, and shares of what stands around them."""

    # HFT: reasoning on all levels, direct answers where no steps are needed, other questions in each.
    think: int = 60_000
    think_levels: Levels = (0.12, 0.22, 0.33, 0.33)
    direct: int = 40_000
    direct_levels: Levels = (0.7, 0.3, 0.0, 0.0)
    chat_answers: int = 8  # answers of the base to one everyday prompt, at most
    answer_repeats: int = 2  # of an answer where there are fewer; it counts behind another conversation
    chat_think_share: float = 0.06  # of them also with a short plan before, so that think mode can chat
    given_repeats: int = 4  # of a greeting or a question about the model itself, each behind another conversation
    # HGPO, and what reports are made on.
    problems: int = 9_600
    problem_levels: Levels = (0.25, 0.25, 0.25, 0.25)
    chat_share: float = 0.2  # everyday prompts among HGPO's; each stands there several times
    validation: int = 600
    test: int = 1_760
    # Around a question.
    sentence_share: float = 0.35  # of numeric answers are a sentence
    system_share: float = 0.12
    turns_share: float = 0.12  # one or two easy questions with their answers go before

    def scaled(self, scale: float) -> Mixture:
        """Return the mixture with `scale` times as many questions per file, at least 20 each."""
        names = ("think", "direct", "problems", "validation", "test")
        return replace(self, **{name: max(20, round(getattr(self, name) * scale)) for name in names})


SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are lhrm-smol, a small assistant.",
    "Answer briefly.",
    "Be concise and correct.",
    "You are a friendly tutor.",
    "You help people with everyday questions.",
)
