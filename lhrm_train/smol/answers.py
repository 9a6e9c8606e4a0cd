"""The base's own answers to the everyday prompts: sampled, kept where no simple rule is broken, resumable."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lhrm_train.format import ChatTokenizer, Message, encode_chat
from lhrm_train.smol.everyday import Prompt, prompts
from lhrm_train.smol.fluency import fault, finished_part

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Answers = Mapping[str, tuple[str, ...]]
# Without a system message the base sometimes rambles; training and serving leave it out.
SYSTEM = "You are a helpful assistant. Answer briefly."
REPORT_EVERY_S = 30.0


class AnswersError(ValueError):
    """A file of answers that is missing, broken, or sampled with other settings."""


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled. `model` names the base; rows of another one are refused."""

    model: str
    samples: int = 8
    temperature: float = 0.4
    max_new_tokens: int = 160
    seed: int = 0


def read_answers(path: Path) -> tuple[Answers, Mapping[str, Any]]:
    """Return the accepted answers of every prompt, and how they were sampled.

    Raises AnswersError for a file that is missing or broken, sampled in two ways, or that lacks a prompt because
    sampling was stopped.
    """
    if not path.is_file():
        raise AnswersError(f"answers {path}: no such file; make it with `python -m lhrm_train.smol answers`")
    rows = _rows(path)
    answers = {row["prompt"]: tuple(dict.fromkeys(row["answers"])) for row in rows}
    asked = _asked()
    missing = [prompt for prompt in asked if prompt.prompt not in answers]
    if missing:
        raise AnswersError(
            f"answers {path}: {len(missing)} of {len(asked)} prompts were not asked yet, the first "
            f"{missing[0].prompt!r}; go on with `python -m lhrm_train.smol answers`"
        )
    samplings = [row["sampling"] for row in rows]
    if other := [sampling for sampling in samplings if sampling != samplings[0]]:
        raise AnswersError(f"answers {path}: some were sampled with {samplings[0]}, some with {other[0]}")
    return answers, samplings[0] if samplings else {}


def sample_answers(base: Path, out: Path, sampling: Sampling, *, chunk: int = 64, batch: int = 64) -> Counter[str]:
    """Append to `out` one row for every prompt without an answer that has no row yet, `chunk` prompts at a time.

    A row holds the prompt, its accepted `answers`, how many were `rejected` for what, and the `sampling`. Returns
    how many answers were accepted or rejected now. Raises AnswersError when `out` holds other settings, FormatError
    when `base` is no checkpoint.
    """
    from lhrm_train.samplers import load_for_evaluation

    done = _done(out, sampling)
    asked = _asked()
    missing = [prompt for prompt in asked if prompt.prompt not in done]
    lm, tokenizer = load_for_evaluation(base)
    out.parent.mkdir(parents=True, exist_ok=True)
    total: Counter[str] = Counter()
    began = said = time.monotonic()
    for start in range(0, len(missing), chunk):
        part = missing[start : start + chunk]
        rows = _sampled(lm, tokenizer, part, sampling, batch)
        with out.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        for row in rows:
            total.update({"accepted": len(row["answers"]), **row["rejected"]})
        if time.monotonic() - said > REPORT_EVERY_S or start + chunk >= len(missing):
            said = time.monotonic()
            finished = len(done) + start + len(part)
            print(f"answers: {finished}/{len(asked)} prompts, {said - began:.0f} s, {dict(total)}", file=sys.stderr)
    return total


def _asked() -> list[Prompt]:
    return [prompt for prompt in prompts() if not prompt.answer]


def _done(out: Path, sampling: Sampling) -> set[str]:
    """Return the prompts that have a row; what a killed run left behind the last line end is cut off."""
    if not out.is_file():
        return set()
    text = out.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        out.write_bytes(whole)
    rows = _rows(out)
    other = next((row["sampling"] for row in rows if row["sampling"] != asdict(sampling)), None)
    if other is not None:
        raise AnswersError(f"answers {out}: sampled with {other}, not {asdict(sampling)}; move the file away")
    return {row["prompt"] for row in rows}


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line:
            continue
        try:
            row = json.loads(line)
            rows.append({name: row[name] for name in ("prompt", "answers", "rejected", "sampling")})
        except (ValueError, KeyError, TypeError) as exc:
            raise AnswersError(f"answers {path}:{number}: {exc!r} in {line[:80]!r}") from exc
    return rows


def _sampled(
    lm: PreTrainedModel, tokenizer: ChatTokenizer, part: Sequence[Prompt], sampling: Sampling, batch: int
) -> list[dict[str, Any]]:
    import torch

    from lhrm_train.rollout import generate
    from lhrm_train.samplers import derived_seed

    torch.manual_seed(derived_seed(sampling.seed, part[0].prompt))
    asked = [
        encode_chat(tokenizer, (Message("system", SYSTEM), Message("user", prompt.prompt)), None) for prompt in part
    ]
    # The rows of the tags are untrained, and would win over words.
    banned = astuple(tokenizer.tags)
    drawn = generate(
        lm, tokenizer, asked, sampling.samples, sampling.temperature, sampling.max_new_tokens, batch, banned
    )
    rows = []
    for prompt, own in zip(part, drawn, strict=True):
        accepted, rejected = judged(prompt.prompt, own, tokenizer)
        row = {"prompt": prompt.prompt, "answers": accepted, "rejected": dict(rejected), "sampling": asdict(sampling)}
        rows.append(row)
    return rows


def judged(
    prompt: str, completions: Sequence[Sequence[int]], tokenizer: ChatTokenizer
) -> tuple[list[str], Counter[str]]:
    """Return the answers that break no rule, each once, and how many break which rule or come again.

    Of an answer that was cut the finished part counts.
    """
    accepted: list[str] = []
    rejected: Counter[str] = Counter()
    for ids in completions:
        ended = bool(ids) and ids[-1] == tokenizer.turn_end_id
        text = tokenizer.decode(ids[:-1] if ended else ids).strip()
        text = text if ended else finished_part(text)
        why = fault(prompt, text) if text or ended else "cut"
        if not why and text in accepted:
            why = "again"
        if why:
            rejected[why] += 1
        else:
            accepted.append(text)
    return accepted, rejected
