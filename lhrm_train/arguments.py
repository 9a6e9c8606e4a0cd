"""Types of command line arguments, each with an error that names what was given."""

from __future__ import annotations

import argparse


def at_least_one(text: str) -> int:
    """Return the whole number in `text`. Raises ArgumentTypeError unless it is at least 1."""
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def above_zero(text: str) -> float:
    """Return the number in `text`. Raises ArgumentTypeError unless it is finite and above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value
