"""The two shells are one text: AsyncLHRM's source without its awaits is LHRM's."""

from __future__ import annotations

import re

from conftest import ROOT

PACKAGE = ROOT / "client" / "lhrm_client"
# Where both spell a thing differently; a word stands for itself alone.
SPELLINGS = {
    "AsyncGenerator[ChatEvent, None]": "Generator[ChatEvent, None, None]",
    r"AsyncLHRM|AsyncChatStream|AsyncConversation|AsyncClient|AsyncBaseTransport|AsyncIterator": lambda m: m[0][5:],
    "aclosing|aiter_bytes|aread|aclose|anext|asend": lambda m: m[0][1:],
    "asynccontextmanager": "contextmanager",
    "__a(iter|next|enter|exit)__": r"__\1__",
    "asyncio.sleep": "time.sleep",
    "(async|await) ": "",
}


def without_awaits(source: str) -> str:
    for pattern, replacement in SPELLINGS.items():
        words = re.escape(pattern) if "[" in pattern else rf"\b(?:{pattern})\b" if "await" not in pattern else pattern
        source = re.sub(words, replacement, source)
    # Only a synchronous generator can hand over to another.
    return re.sub(r"for event in (reader\.feed\(chunk\)):\s+yield event", r"yield from \1", source)


def body(source: str) -> str:
    """Return what follows the imports, without docstrings and layout."""
    code = source[source.index("\nclass ") :]
    return " ".join(re.sub(r'""".*?"""', "", code, flags=re.DOTALL).split()).replace(", )", ")").replace("( ", "(")


def test_the_shells_differ_in_their_awaits_alone():
    sync = (PACKAGE / "_client.py").read_text(encoding="utf-8")
    asynchronous = (PACKAGE / "_async_client.py").read_text(encoding="utf-8")
    assert body(without_awaits(asynchronous)) == body(sync)
    assert asynchronous.count("await ") > 15
