"""What is in the data, as a Markdown table: rows, tokens per part, by mode and level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lhrm_train.format import ChatTokenizer, Message, encode_chat

HEADER = (
    "| file | mode | level | rows | prompt tokens | reasoning tokens | answer tokens | 95 % | longest |",
    "|---|---|---|---|---|---|---|---|---|",
)
LEVEL_NAMES = {0: "everyday"}


def data_table(made: Mapping[str, Sequence[Mapping[str, Any]]], tokenizer: ChatTokenizer) -> str:
    """Return the table of all files with messages. Token columns are means; the last two are of whole samples."""
    lines = list(HEADER)
    for name, rows in made.items():
        cells: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
        for row in rows:
            if "messages" in row:
                cells.setdefault((row.get("mode", "-"), row["level"]), []).append(_lengths(row, tokenizer))
        for (mode, level), lengths in sorted(cells.items()):
            lines.append(f"| {name} | {mode} | {LEVEL_NAMES.get(level, level)} | {_figures(lengths)} |")
        if cells:
            lines.append(f"| **{name}** | all | all | {_figures([one for cell in cells.values() for one in cell])} |")
    return "\n".join(lines)


def total_tokens(rows: Sequence[Mapping[str, Any]], tokenizer: ChatTokenizer) -> int:
    """Return the tokens of all samples, prompts included, tags and ends of turn left aside."""
    return sum(sum(_lengths(row, tokenizer)) for row in rows)


def _lengths(row: Mapping[str, Any], tokenizer: ChatTokenizer) -> tuple[int, int, int]:
    messages = [Message(message["role"], message["content"]) for message in row["messages"]]
    prompt = len(encode_chat(tokenizer, messages, None))
    reasoning, answer = (len(tokenizer.encode_text(row.get(column, ""))) for column in ("reasoning", "answer"))
    return prompt, reasoning, answer


def _figures(lengths: Sequence[tuple[int, int, int]]) -> str:
    means = [sum(column) / len(lengths) for column in zip(*lengths, strict=True)]
    whole = sorted(sum(one) for one in lengths)
    parts = [str(len(lengths)), *(f"{mean:.0f}" for mean in means), str(whole[int(0.95 * len(whole))]), str(whole[-1])]
    return " | ".join(parts)
