"""The model card of lhrm-smol, from the folder that `measure_smol` writes, the data, and the run that trained it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from lhrm_train.atomic import write_text
from lhrm_train.bars import bar_table
from lhrm_train.evaluation_report import CURVE, DIFFICULTY
from lhrm_train.format import NO_THINK_OPEN, THINK_OPEN, ChatTokenizer, SavingsCalibration
from lhrm_train.report import baseline_lines, group, key_line, markdown, shown, table
from lhrm_train.rows import Row, write_rows
from lhrm_train.smol.bars import bars
from lhrm_train.smol.evaluation import EVERYDAY, EXAMPLES, GYM, GYM_OTHER, HELD_OUT, PERPLEXITY, TEST
from lhrm_train.smol.measured import HARD_LEVEL, Measured
from lhrm_train.smol.questions.base import KNOWN_LEVEL
from lhrm_train.smol.training import Run, data_section, training_section

SHOWN = 3  # examples of each sort

INTRO = f"""# lhrm-smol

SmolLM2-135M-Instruct (Apache-2.0), trained to open each answer with `{THINK_OPEN}` or `{NO_THINK_OPEN}`: it works
questions out that need steps, and answers the others, and everyday conversation, directly. `make smol` builds it from
the published base and the delta in `delta/`; `docs/smol.md` tells how its data was made and how it is trained. It is
licensed as its base is, Apache-2.0.

**It is a small model.** Its knowledge is that of 135 million parameters: facts it tells are often wrong, and questions
unlike those below come out wrong, with or without thinking.
"""


def write_card(folder: Path, target: Path, data: Path, run: Run | None) -> str:
    """Write README.md and evaluation/ of the model in `target` and return the key line.

    `folder` is that of `measure_smol`, `data` what the model was trained on, `run` what trained it; without it the card
    says that it has no settings and curves. Raises ConfigError or OSError where `folder` lacks a part, FormatError when
    `target` holds no checkpoint.
    """
    measured = Measured.read(folder)
    tokenizer = ChatTokenizer.load(target)
    evaluation = target / "evaluation"
    evaluation.mkdir(parents=True, exist_ok=True)
    for name, rows in measured.rows.items():
        write_rows(evaluation / f"{name}.jsonl.gz", rows)
    for plot in (DIFFICULTY, CURVE):
        shutil.copyfile(folder / TEST / plot, evaluation / plot)
    for file in (folder / EXAMPLES, folder / PERPLEXITY, data / HELD_OUT):
        shutil.copyfile(file, evaluation / file.name)
    recipe = data_section(data, tokenizer), training_section(run, evaluation)
    write_text(target / "README.md", card_text(measured, tokenizer.manifest.savings_calibration, *recipe))
    return key_line(measured.figures)


def card_text(measured: Measured, calibration: SavingsCalibration | None, *recipe: str) -> str:
    """Return the card; `recipe` are the sections about data and training."""
    figures = _bars(measured), _method(measured, calibration), _tests(measured), _everyday(measured), _gym(measured)
    parts = [INTRO, *figures, _examples(measured), *recipe]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _bars(measured: Measured) -> str:
    return f"""## What it should do, and what it does

{bar_table(bars(measured))}
"""


def _method(measured: Measured, calibration: SavingsCalibration | None) -> str:
    settings = measured.settings
    savings = "**not available**, so a server states no saving"
    if calibration is not None:
        savings = f"of {calibration.prompts} validation prompts that it answers directly, in `lhrm.json`"
    return f"""## Evaluation

{settings["samples"]} samples per forced mode at temperature {settings["temperature"]:g}, at most
{settings["max_new_tokens"]} new tokens. Free choice: think iff P(think) >= 0.5. Hybrid Accuracy: share of prompts where
the free choice is the mode with the higher mean score; means within {measured.margin:g} go to the mode with fewer
tokens. Tokens are completion tokens; a saving holds for this mix only. Raw rows are in `evaluation/`.
The content of level {KNOWN_LEVEL} (times tables, the day after Monday) was trained on, that of the others was not. On
reasoning-gym an answer is right or wrong (`lhrm_train/smol/right.py`); the parts of a score that its verifiers give do
not count.
Calibration of the saving that a server states: {savings}.
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
(`lhrm_train/smol/fluency.py`). The free choice takes {f["everyday_tokens_free"]:.1f} tokens to answer one, always-think
{f["everyday_tokens_think"]:.1f}: {_share(f["everyday_tokens_ratio"])} of them.

Perplexity on [the base's own answers](evaluation/{HELD_OUT}) to such prompts
({perplexity.tokens} tokens): {perplexity.model:.2f}, of the base
{perplexity.base:.2f}, and {perplexity.base_with_system:.2f} behind the system message with which they were sampled. The
model has {f["perplexity_ratio"]:.2f} times the lower of the two.
"""


def _share(value: float) -> str:
    return shown(value, ".1%")


def _gym(measured: Measured) -> str:
    return f"""### reasoning-gym

At the tasks' default difficulty. Questions that it has not seen, of tasks that it is trained on:

{_by(measured.rows[GYM], measured, level=False)}

Tasks that it is not trained on, in wordings of their own:

{_by(measured.rows[GYM_OTHER], measured, level=False)}
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
