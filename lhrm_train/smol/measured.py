"""What an evaluation of lhrm-smol found: its folder read back, and the figures that count."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lhrm_train.config import ConfigError
from lhrm_train.json_lines import read_json_lines
from lhrm_train.measure import ROWS, read_settings
from lhrm_train.report import Summary, counted, summarise
from lhrm_train.rows import Row, row_log
from lhrm_train.smol.evaluation import EVERYDAY, EXAMPLES, GYM, GYM_OTHER, PERPLEXITY, TEST
from lhrm_train.smol.examples import Example
from lhrm_train.smol.perplexity import Perplexities
from lhrm_train.smol.questions.base import KNOWN_LEVEL

HARD_LEVEL = 3


@dataclass(frozen=True)
class Measured:
    """What the folder of an evaluation holds: rows by set, perplexities, examples by set."""

    rows: Mapping[str, Sequence[Row]]
    perplexity: Perplexities
    examples: Mapping[str, Sequence[Example]]
    settings: Mapping[str, object]
    margin: float

    @classmethod
    def read(cls, folder: Path) -> Measured:
        """Read what `measure_smol` wrote. Raises ConfigError or OSError where a part is missing."""
        settings = read_settings(folder / TEST)
        examples: dict[str, list[Example]] = {TEST: [], EVERYDAY: []}
        for raw in read_json_lines(folder / EXAMPLES):
            examples[raw.pop("set")].append(Example(**raw))
        return cls(
            rows={name: row_log(folder / name / ROWS).read() for name in (TEST, EVERYDAY, GYM, GYM_OTHER)},
            perplexity=_perplexities(folder / PERPLEXITY),
            examples=examples,
            settings=settings["sampling"],
            margin=float(settings["analysis"]["margin"]),
        )

    @property
    def hard(self) -> Sequence[Row]:
        """The held-out questions of the levels that need steps."""
        return [row for row in self.rows[TEST] if row.level >= HARD_LEVEL]

    @property
    def unknown(self) -> Sequence[Row]:
        """The held-out questions whose content is in no training file; of level 1 at most the wording is new."""
        return [row for row in self.rows[TEST] if row.level > KNOWN_LEVEL]

    def summary(self, name: str, rows: Sequence[Row] | None = None) -> Summary:
        """Summarise a set, or `rows` of it. Raises ConfigError where not one row counts."""
        chosen = self.rows[name] if rows is None else rows
        if not counted(chosen):
            raise ConfigError(f"set {name!r}: of {len(chosen)} rows here none has a valid sample of each mode")
        return summarise(chosen, self.margin)

    @property
    def figures(self) -> dict[str, float]:
        """The figures that decide whether the model does what it is for."""
        test, everyday, gym, other = (self.summary(name) for name in (TEST, EVERYDAY, GYM, GYM_OTHER))
        hard = self.summary(TEST, self.hard)
        found = {
            "accuracy_think": test.accuracy_think,
            "accuracy_no_think": test.accuracy_no_think,
            "accuracy_free": test.accuracy_free,
            "hard_think": hard.accuracy_think,
            "hard_no_think": hard.accuracy_no_think,
            "oracle_tokens_ratio": 1 - test.oracle_cut,
            **_of_choice(test),
            "everyday_no_think": 1 - everyday.think_rate,
            "everyday_fluent": everyday.accuracy_free,
            "everyday_tokens_think": everyday.tokens_think,
            "everyday_tokens_free": everyday.tokens_free,
            "everyday_tokens_ratio": 1 - everyday.cut,
            "gym_think": gym.accuracy_think,
            "gym_no_think": gym.accuracy_no_think,
            "gym_free": gym.accuracy_free,
            **_of_choice(gym, "gym_"),
            "gym_other_think": other.accuracy_think,
            "gym_other_no_think": other.accuracy_no_think,
            "gym_other_free": other.accuracy_free,
            **_of_choice(other, "gym_other_"),
            "perplexity_ratio": self.perplexity.ratio,
        }
        return {"prompts": test.n, **{name: round(value, 4) for name, value in found.items()}}


def _of_choice(part: Summary, before: str = "") -> dict[str, float]:
    return {
        f"{before}tokens_ratio": 1 - part.cut,
        f"{before}hacc": part.hacc,
        f"{before}hacc_always_think": part.hacc_always_think,
        f"{before}hacc_always_no_think": part.hacc_always_no_think,
    }


def _perplexities(path: Path) -> Perplexities:
    raw = json.loads(path.read_text(encoding="utf-8"))
    try:
        return Perplexities(**raw)
    except TypeError as exc:
        raise ConfigError(f"{path}: holds {sorted(raw)}; remove it to have them measured anew: {exc}") from exc
