"""Reads docs/api.md: its tables, its examples, and the patterns that its replies are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from conftest import ROOT
from lhrm_server.checks import INT32, INT64, Schema

TEXT = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
ANYTHING = "..."
DATA = "data: "
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


# --- Tables ---


def section(title: str) -> str:
    """Return what stands below a heading, up to the next one of any level."""
    parts = re.split(r"^#+ (.+)$", FENCE.sub("", TEXT), flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    return found[title]


def tables(title: str) -> list[list[list[str]]]:
    """Return the cells of every table of a section, without the heads; spans of code keep their marks."""
    found: list[list[list[str]]] = [[]]
    for line in section(title).splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found[-1]:
            found.append([])
    return [rows[2:] for rows in found if rows]


def table(title: str) -> list[list[str]]:
    """Return the only table of a section."""
    (rows,) = tables(title)
    return rows


def codes(text: str) -> list[str]:
    """Return the spans of code in a text."""
    return CODE.findall(text)


def code(text: str) -> str:
    """Return the only span of code in a text."""
    (found,) = codes(text)
    return found


# --- What a schema takes, in words ---


def leaves(schema: Schema) -> dict[str, str]:
    """Return what each value within an object may be, by its place; members of members have rows of their own.

    Null, which every field that is not required takes, is left out.
    """
    words: dict[str, list[str]] = {}
    required: dict[str, bool] = {}
    _walk("", schema, words, required)
    return {
        place: _joined(list(dict.fromkeys(kinds))) + (", required" if required.get(place) else "")
        for place, kinds in words.items()
    }


def _joined(kinds: list[str]) -> str:
    return (" " if all(kind.startswith("`") for kind in kinds) else " or ").join(kinds)


def _walk(place: str, schema: Schema, words: dict[str, list[str]], required: dict[str, bool]) -> None:
    for kind in _alternatives(schema):
        members = _members(kind)
        if members is None:
            words.setdefault(place, []).append(_words(kind))
        for name, member in (members or {}).items():
            inner = f"{place}.{name}".removeprefix(".")
            if list(_alternatives(member)):
                required[inner] = required.get(inner, True) and name in kind.get("required", ())
            _walk(inner, member, words, required)
        if kind.get("type") == "array" and _of_objects(kind):
            _walk(f"{place}[]", kind["items"], words, required)


def _alternatives(schema: Any) -> Iterator[Any]:
    if "anyOf" in schema:
        for part in schema["anyOf"]:
            yield from _alternatives(part)
    elif schema.get("type") != "null":
        yield schema


def _members(schema: Any) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = schema.get("properties")
    return found


def _of_objects(schema: Any) -> bool:
    return any(_members(kind) is not None for kind in _alternatives(schema["items"]))


def _words(schema: Any) -> str:
    if "const" in schema or "enum" in schema:
        return " ".join(f"`{literal(value)}`" for value in schema.get("enum", [schema.get("const")]))
    kind = schema["type"]
    if kind == "array":
        return _list_words(schema)
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object, each value a {_words(schema['additionalProperties'])}"
    name = " or ".join(kind) if isinstance(kind, list) else str(kind)
    return f"{'non-empty ' if schema.get('minLength') else ''}{name}{_range(schema)}"


def _list_words(schema: Any) -> str:
    of = "" if _of_objects(schema) else f" of {_words(schema['items'])}"
    low = f", at least {schema['minItems']}" if "minItems" in schema else ""
    high = f", at most {schema['maxItems']}" if "maxItems" in schema else ""
    return f"list{of}{low}{high}"


def _range(schema: Any) -> str:
    if "exclusiveMinimum" in schema:
        return f", above {_size(schema['exclusiveMinimum'])}, at most {_size(schema['maximum'])}"
    return f", {_size(schema['minimum'])} to {_size(schema['maximum'])}" if "minimum" in schema else ""


def _size(value: float) -> str:
    for power, name in ((INT32, "2^31"), (INT64, "2^63")):
        if value in (power - 1, -power):
            return f"{name}-1" if value > 0 else f"-{name}"
    return f"{value:g}"


def literal(value: object) -> str:
    """Return a JSON value as the document spells it: strings bare, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def value_of(spelled: str) -> Any:
    """Return what literal() spells."""
    try:
        return json.loads(spelled)
    except ValueError:
        return spelled


# --- Examples ---


@dataclass(frozen=True)
class Example:
    """One request with what its reply looks like; an event stream's is a list of events."""

    title: str
    path: str
    headers: Mapping[str, str]
    body: Any
    status: int
    reply_headers: Mapping[str, str]
    reply: Any


def examples() -> list[Example]:
    """Return every example. Several requests in front of one reply have that reply each."""
    found: list[Example] = []
    asked: list[tuple[str, str, Mapping[str, str], Any]] = []
    title = ""
    for match in re.finditer(r"^(?:#+ ([^\n]+)|(`[^\n]+`):\n```(\w+)\n(.*?)^```)$", TEXT, re.DOTALL | re.MULTILINE):
        heading, line, kind, block = match.groups()
        if heading:
            title = heading
            continue
        first, *headers = codes(line)
        named = dict(header.split(": ", 1) for header in headers)
        if first.startswith("POST "):
            asked.append((title, first.removeprefix("POST "), named, json.loads(block)))
            continue
        reply = _events(block) if kind == "text" else json.loads(block)
        found += [Example(*request, int(first), named, reply) for request in asked]
        asked = []
    return found


def _events(block: str) -> list[Any]:
    return [line if line == ANYTHING else event(line) for line in block.splitlines() if line]


def event(line: str) -> Any:
    """Return the data of an event, JSON or the [DONE] at the end."""
    data = line.removeprefix(DATA)
    return data if data == "[DONE]" else json.loads(data)


def difference(pattern: Any, value: Any, place: str = "") -> str | None:
    """Return where a value differs from a pattern, None where it fits.

    Members that the pattern does not show may be there. In a text "..." stands for any text, as the whole of a value
    for any value, in a list for any number of items. A number with a decimal point stands for any number.
    """
    if pattern == ANYTHING:
        return None
    if isinstance(pattern, dict):
        return _object_difference(pattern, value, place)
    if isinstance(pattern, list):
        fits = isinstance(value, list) and _list_fits(pattern, value)
    elif isinstance(pattern, str):
        parts = ".*".join(map(re.escape, pattern.split(ANYTHING)))
        fits = isinstance(value, str) and re.fullmatch(parts, value, re.DOTALL) is not None
    elif isinstance(pattern, float):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        fits = type(value) is type(pattern) and value == pattern
    return None if fits else f"{place or 'the whole'}: {value!r} is not {pattern!r}"


def _object_difference(pattern: Mapping[str, Any], value: Any, place: str) -> str | None:
    if not isinstance(value, dict):
        return f"{place}: {value!r} is no object"
    for name, part in pattern.items():
        inner = f"{place}.{name}"
        if name not in value:
            return f"{inner} is missing"
        if (found := difference(part, value[name], inner)) is not None:
            return found
    return None


def _list_fits(pattern: list[Any], value: list[Any]) -> bool:
    if not pattern:
        return not value
    if pattern[0] == ANYTHING:
        return any(_list_fits(pattern[1:], value[skipped:]) for skipped in range(len(value) + 1))
    return bool(value) and difference(pattern[0], value[0]) is None and _list_fits(pattern[1:], value[1:])
