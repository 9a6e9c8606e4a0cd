"""The model card of a nano checkpoint, written from the figures of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lhrm_train.config import EvalConfig
from lhrm_train.format import NO_THINK_OPEN, THINK_OPEN

INTRO = """# lhrm-nano

A {size} Large Hybrid-Reasoning Model that runs on two CPU cores. It answers short questions of the
kinds listed below, and opens each answer with `{think}` or `{no_think}`: it works hard questions out on a
scratchpad and answers easy ones directly. It exists to show and test the whole system end to end.

**It is not a language model that talks.** Questions outside its kinds come out wrong, often confidently.
It has no world knowledge beyond a few dozen memorised facts. Questions that its training saw too little of come out
wrong as well, and the longer a conversation, the more often; `docs/experiments.md` measures both.

## What it was trained on
Generated questions with programmatic traces, each trace recomputed by an independent checker:
{kinds}.
In HGPO and in the evaluation about three in ten of the questions carry a system message, one or two earlier turns, or
both; in HFT one in ten at first, later more than half, in conversations of up to {turns} turns.
HFT also sees a long number plus one digit more often than the evaluation, and only with its scratchpad.
Open questions are split by a hash of their content (80 % train, 10 % validation, 10 % test); closed sets
({closed}) are shared by all splits.

`make train-nano` rebuilds it from nothing: Hybrid Fine-Tuning on both modes, then Hybrid Group Policy
Optimization (arXiv 2505.14631) with the settings of `lhrm_train/config.py`. `make eval-nano` repeats the
evaluation below, but for the checkpoint before HGPO; `evaluation/` holds the raw rows and the settings and versions of
the run.
"""


def _seed_table(runs: Sequence[dict[str, Any]]) -> str:
    out = [
        "| HFT seed | HGPO seed | validation HAcc | HAcc | HAcc levels 2+ | free | always-think | HFT always-think "
        "| token cut | oracle cut | minutes HFT + HGPO |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        f, seconds = run["figures"], run["seconds"]
        minutes = " + ".join(f"{seconds[name] / 60:.0f}" if name in seconds else "shared" for name in ("hft", "hgpo"))
        mark = " (shipped)" if run["shipped"] else ""
        out.append(
            f"| {run['hft_seed']} | {run['hgpo_seed']}{mark} | {run['validation_hacc']:.3f} | {f['hacc']:.3f} "
            f"| {f['hacc_levels_2_up']:.3f} | {f['accuracy_free']:.3f} | {f['accuracy_think']:.3f} "
            f"| {f['hft_accuracy_think']:.3f} | {f['token_cut']:.1%} | {f['oracle_cut']:.1%} | {minutes} |"
        )
    return "\n".join(out)


def model_card(runs: Sequence[dict[str, Any]], report: str, measured: EvalConfig, truncated: str, size: str) -> str:
    """Return the card: what the model is, the shipped run's report and every run side by side.

    `measured` are the settings of the shipped run's evaluation, `truncated` the share of completions it cut.
    """
    from lhrm_train.suite.mix import CURRICULUM_TURNS, KINDS, WORKLOAD

    kinds = [KINDS[name] for name in WORKLOAD]
    shipped = next(run for run in runs if run["shipped"])["figures"]
    closed = [f"{kind.name} level {level}" for kind in kinds for level in kind.closed_levels]
    intro = INTRO.format(
        think=THINK_OPEN,
        no_think=NO_THINK_OPEN,
        size=size,
        kinds=", ".join(WORKLOAD),
        closed=", ".join(closed),
        turns=max(CURRICULUM_TURNS),
    )
    method = f"""## Evaluation
{shipped["prompts"]} test prompts of the fixed mix in `lhrm_train/suite/mix.py`, {measured.samples} samples per
forced mode at temperature {measured.temperature:g} and at most {measured.max_new_tokens} new tokens ({truncated} of the
completions were cut), scored by equality with the reference. Free choice: think iff P(think) >= 0.5. Hybrid Accuracy:
share of prompts where the free choice is the mode with the higher mean score; means within {measured.margin:g} go to
the shorter mode. {shipped["failing_no_think"]:.1%} of the prompts fail in no-think (mean score under 0.5), and
{shipped["no_think_violations"]:.2%} of the no-think outputs hold a tag or run longer than the reference + 4 tokens.
The oracle always picks the better mode. Brackets are 95 % bootstrap intervals over questions, paired.
Before HGPO the choice was uninformed: think rate
{shipped["hft_think_rate"]:.2f}, Hybrid Accuracy {shipped["hft_hacc"]:.3f}. Tokens are completion tokens; a saving holds
for this mix only.
"""
    pictures = (
        "![accuracy and think rate against difficulty](evaluation/difficulty.png)\n\n"
        "![HGPO: agreement with the better mode, think rate, think accuracy](evaluation/hgpo.png)\n"
    )
    seeds = f"""## Seeds
The shipped run has the highest Hybrid Accuracy on validation.

{_seed_table(runs)}
"""
    return "\n".join([intro, method, report, pictures, seeds])
