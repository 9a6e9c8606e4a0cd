"""Scorer `gym`: the verifier of the reasoning-gym task that a problem comes from."""

from __future__ import annotations

from collections.abc import Callable

from lhrm_train.problems import Problem
from lhrm_train.rewards.base import ScoreError, required_mapping


class Gym:
    """Asks reasoning-gym, which may give part of the score; one verifier per task is kept.

    ``fields["dataset"]`` is the task's name and ``fields["entry"]`` the item as the task generated it. The
    verifier has the task's default settings.
    """

    def __init__(self) -> None:
        self._verifiers: dict[str, Callable[..., float]] = {}

    def __call__(self, problem: Problem, answer: str) -> float:
        """Return the verifier's score in [0, 1]. Raises ScoreError on a missing field or an unknown task."""
        name, entry = problem.fields.get("dataset"), required_mapping(problem, "entry", "gym")
        if not isinstance(name, str):
            raise ScoreError(f"scorer 'gym': fields['dataset'] = {name!r} is not a string")
        if name not in self._verifiers:
            self._verifiers[name] = self._load(name)
        return float(self._verifiers[name](answer, entry))

    @staticmethod
    def _load(name: str) -> Callable[..., float]:
        import reasoning_gym

        try:
            verifier: Callable[..., float] = reasoning_gym.get_score_answer_fn(name)
        except ValueError as exc:
            raise ScoreError(f"scorer 'gym': fields['dataset'] = {name!r}: {exc}") from exc
        return verifier
