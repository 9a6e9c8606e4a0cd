"""The suite's questions in another mix of easy and hard."""

from __future__ import annotations

import random
from pathlib import Path

from lhrm_loadtest.errors import LoadTestError
from lhrm_loadtest.prompts import Prompt
from lhrm_loadtest.sources import SUITE, read_source

from bench.servers import ROOT
from lhrm_train.report import group
from lhrm_train.rows import Row, known_mean, read_rows

EVALUATED = ROOT / "models" / "lhrm-nano" / "evaluation" / "validation.jsonl.gz"
# Two in five of the suite's own are hard, so this is enough for any share.
POOL = 4


def read_prompts(n: int, seed: int, hard_share: float | None) -> list[Prompt]:
    """Return `n` suite questions, in the suite's mix or with `hard_share` of them hard. Raises LoadTestError."""
    if hard_share is None:
        return read_source(SUITE, n, seed)
    return mixed(read_source(SUITE, POOL * n, seed), hard_cells(EVALUATED), n, hard_share, seed)


def hard_cells(rows: Path) -> set[str]:
    """Return the kinds and levels that no-think answers wrong more often than right, on the validation split."""
    cells = group(read_rows(rows), _cell)
    return {name for name, some in cells.items() if known_mean(row.no_think.score for row in some) < 0.5}


def mixed(prompts: list[Prompt], hard: set[str], n: int, hard_share: float, seed: int) -> list[Prompt]:
    """Return the first questions of each sort, `n` in all, in random order. Raises LoadTestError if some lack."""
    wanted = {True: round(hard_share * n), False: n - round(hard_share * n)}
    kept = []
    for is_hard, count in wanted.items():
        some = [prompt for prompt in prompts if (f"{prompt.task} {prompt.level}" in hard) is is_hard]
        if len(some) < count:
            raise LoadTestError(f"hard share {hard_share}: {count} questions are needed, the suite gave {len(some)}")
        kept += some[:count]
    random.Random(seed).shuffle(kept)
    return kept


def _cell(row: Row) -> str:
    return f"{row.kind} {row.level}"
