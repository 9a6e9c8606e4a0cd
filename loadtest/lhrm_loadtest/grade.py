"""Tell whether an answer is right, by comparison with the reference answers of its prompt."""

from __future__ import annotations

from .workload import Prompt


def is_correct(prompt: Prompt, answer: str) -> bool | None:
    """Compare without regard to case, spacing and a final full stop; None when there is no reference."""
    if prompt.answer is None:
        return None
    references = (prompt.answer,) if isinstance(prompt.answer, str) else prompt.answer
    return _plain(answer) in {_plain(reference) for reference in references}


def _plain(text: str) -> str:
    return " ".join(text.split()).removesuffix(".").rstrip().casefold()
