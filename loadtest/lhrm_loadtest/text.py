"""Text that can be written as UTF-8: JSON may escape halves of UTF-16 surrogate pairs, and a stream may split them."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import AfterValidator


def is_whole(text: str) -> bool:
    """Tell whether a text has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def whole(text: str) -> str:
    """Return the text with the halves of surrogate pairs joined, and U+FFFD for one that is alone."""
    if is_whole(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


Text: TypeAlias = Annotated[str, AfterValidator(whole)]
"""A string from elsewhere, made whole."""
