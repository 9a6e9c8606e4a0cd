"""Digests of files' bytes: they tell one model, or one data set, from another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest_of(paths: Iterable[Path]) -> str:
    """Return 16 hexadecimal digits that depend on the names and bytes of the files, in this order."""
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32))
        digest.update(path.name.encode() + b"\0" + content.digest())
    return digest.hexdigest()


def weights_digest(checkpoint: Path) -> str:
    """Return the digest of a checkpoint's weights: the same for a copy, another one after any training."""
    return digest_of(sorted(checkpoint.glob("*.safetensors")))


def data_digest(name: str) -> str | None:
    """Return the digest of a file, or of all files in a directory; None where there is neither (a hub name)."""
    path = Path(name)
    if path.is_dir():
        return digest_of(sorted(part for part in path.rglob("*") if part.is_file()))
    return digest_of([path]) if path.is_file() else None
