"""The model card of lhrm-smol, derived from the folder that `measure_smol` writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lhrm_train.atomic import write_text
from lhrm_train.evaluation_report import CURVE, DIFFICULTY
from lhrm_train.format import NO_THINK_OPEN, THINK_OPEN
from lhrm_train.measure import ROWS, read_settings
from lhrm_train.report import baseline_lines, group, key_line, markdown, shown, summarise, table
from lhrm_train.rows import Row, row_log, write_rows
from lhrm_train.smol.evaluation import EVERYDAY, EXAMPLES, GYM, PERPLEXITY, TEST
from lhrm_train.smol.examples import Example

HARD_LEVEL = 3
SHOWN = 3  # examples of each sort

INTRO = f"""# lhrm-smol

SmolLM2-135M-Instruct (Apache-2.0), trained to open each answer with `{THINK_OPEN}` or `{NO_THINK_OPEN}`: it works
questions out that need steps, and answers the others, and everyday conversation, directly. `make smol` builds it from
the published base and the delta in `delta/`; `docs/smol.md` tells how its data was made and how it is trained. It is
licensed as its base is, Apache-2.0.

**It is a small model.** Its knowledge is that of 135 million parameters: facts it tells are often wrong, and questions
unlike those below come out wrong, with or without thinking.
"""


@dataclass(frozen=True)
class Measured:
    """What the folder of an evaluation holds: rows by set, perplexity of model and base, examples by set."""

    rows: Mapping[str, Sequence[Row]]
    perplexity: Mapping[str, float]
    examples: Mapping[str, Sequence[Example]]
    settings: Mapping[str, object]
    margin: float

    @classmethod
    def read(cls, folder: Path) -> Measured:
        """Read what `measure_smol` wrote. Raises ConfigError or OSError where a part is missing."""
        settings = read_settings(folder / TEST)
        examples: dict[str, list[Example]] = {TEST: [], EVERYDAY: []}
        for line in (folder / EXAMPLES).read_text(encoding="utf-8").splitlines():
            raw = json.loads(line)
            examples[raw.pop("set")].append(Example(**raw))
        return cls(
            rows={name: row_log(folder / name / ROWS).read() for name in (TEST, EVERYDAY, GYM)},
            perplexity=json.loads((folder / PERPLEXITY).read_text(encoding="utf-8")),
            examples=examples,
            settings=settings["sampling"],
            margin=float(settings["analysis"]["margin"]),
        )

    @property
    def figures(self) -> dict[str, float]:
        """The figures that decide whether the model does what it is for."""
        test, everyday = summarise(self.rows[TEST], self.margin), summarise(self.rows[EVERYDAY], self.margin)
        hard = summarise([row for row in self.rows[TEST] if row.level >= HARD_LEVEL], self.margin)
        gym = summarise(self.rows[GYM], self.margin)
        return {
            "prompts": test.n,
            "accuracy_think": round(test.accuracy_think, 4),
            "accuracy_no_think": round(test.accuracy_no_think, 4),
            "accuracy_free": round(test.accuracy_free, 4),
            "hard_think": round(hard.accuracy_think, 4),
            "hard_no_think": round(hard.accuracy_no_think, 4),
            "tokens_ratio": round(test.tokens_free / test.tokens_think, 4),
            "oracle_tokens_ratio": round(1 - test.oracle_cut, 4),
            "hacc": round(test.hacc, 4),
            "hacc_always_think": round(test.hacc_always_think, 4),
            "hacc_always_no_think": round(test.hacc_always_no_think, 4),
            "everyday_no_think": round(1 - everyday.think_rate, 4),
            "everyday_fluent": round(everyday.accuracy_free, 4),
            "gym_think": round(gym.accuracy_think, 4),
            "gym_no_think": round(gym.accuracy_no_think, 4),
            "gym_free": round(gym.accuracy_free, 4),
            "perplexity_ratio": round(self.perplexity["model"] / self.perplexity["base"], 4),
        }


def write_card(folder: Path, target: Path) -> str:
    """Write README.md and evaluation/ of the model in `target` and return the key line."""
    measured = Measured.read(folder)
    evaluation = target / "evaluation"
    evaluation.mkdir(parents=True, exist_ok=True)
    for name, rows in measured.rows.items():
        write_rows(evaluation / f"{name}.jsonl.gz", rows)
    for plot in (DIFFICULTY, CURVE):
        shutil.copyfile(folder / TEST / plot, evaluation / plot)
    shutil.copyfile(folder / EXAMPLES, evaluation / EXAMPLES)
    write_text(target / "README.md", card_text(measured))
    return key_line(measured.figures)


def card_text(measured: Measured) -> str:
    """Return the card."""
    parts = [INTRO, _method(measured), _tests(measured), _everyday(measured), _gym(measured), _examples(measured)]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _method(measured: Measured) -> str:
    settings = measured.settings
    return f"""## Evaluation

{settings["samples"]} samples per forced mode at temperature {settings["temperature"]:g}, at most
{settings["max_new_tokens"]} new tokens. Free choice: think iff P(think) >= 0.5. Hybrid Accuracy: share of prompts where
the free choice is the mode with the higher mean score; means within {measured.margin:g} go to the mode with fewer
tokens. Tokens are completion tokens; a saving holds for this mix only. Raw rows are in `evaluation/`.
"""


def _by(rows: Sequence[Row], measured: Measured, *, level: bool) -> str:
    parts = group(rows, lambda row: f"level {row.level}" if level else row.kind)
    return table({"all": rows, **parts}, measured.margin)


def _tests(measured: Measured) -> str:
    rows, f = measured.rows[TEST], measured.figures
    return f"""### Held-out questions of the trained kinds

{_by(rows, measured, level=True)}

{baseline_lines(rows, measured.margin)}

On levels {HARD_LEVEL} and up thinking is right in {f["hard_think"]:.1%}, not thinking in {f["hard_no_think"]:.1%}.
The free choice takes {f["tokens_ratio"]:.1%} of always-think's tokens, the oracle {f["oracle_tokens_ratio"]:.1%}.

{_by(rows, measured, level=False)}

![accuracy and think rate against difficulty](evaluation/{DIFFICULTY})
![accuracy against tokens over the threshold](evaluation/{CURVE})
"""


def _everyday(measured: Measured) -> str:
    f, perplexity = measured.figures, measured.perplexity
    return f"""### Everyday prompts

Of {len(measured.rows[EVERYDAY])} everyday prompts that nothing was trained on, {f["everyday_no_think"]:.1%} are
answered without thinking; {f["everyday_fluent"]:.1%} of the answers break none of the rules for fluency
(`lhrm_train/smol/fluency.py`).
Perplexity on the base's own answers to such prompts: {perplexity["model"]:.2f}, of the base {perplexity["base"]:.2f}
({f["perplexity_ratio"]:.2f} times, {perplexity["tokens"]:.0f} tokens).
"""


def _gym(measured: Measured) -> str:
    return f"""### reasoning-gym

Tasks near the trained kinds at their default difficulty, in wordings and sizes that it was not trained on.

{_by(measured.rows[GYM], measured, level=False)}
"""


def _examples(measured: Measured) -> str:
    scored = measured.examples[TEST]
    sorts = {
        "right, with thinking": [one for one in scored if one.score == 1 and one.mode == "think"],
        "right, without": [one for one in scored if one.score == 1 and one.mode != "think"],
        "wrong": [one for one in scored if one.score == 0],
        "everyday": list(measured.examples[EVERYDAY]),
    }
    lines = [
        [sort, *(_cell(text) for text in (one.question, one.reasoning, one.answer)), shown(one.p_think, ".2f")]
        for sort, found in sorts.items()
        for one in found[:SHOWN]
    ]
    header = ["", "question", "reasoning", "answer", "P(think)"]
    return f"""## Examples

The first of each sort, in the mode the model chose, of those in `evaluation/{EXAMPLES}`.

{markdown(header, lines)}
"""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "/") or "-"
