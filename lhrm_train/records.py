"""Records of JSONL files and data sets, one at a time, each with the place it comes from."""

from __future__ import annotations

import gzip
import importlib
import itertools
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

from lhrm_train.config import ConfigError, DataConfig

SHOWN_CHARACTERS = 120


class DataError(ValueError):
    """A file, row or set of rows that cannot be trained on."""


@dataclass(frozen=True)
class Row:
    """One record with the place it comes from; a column that is null or has an empty name is absent."""

    where: str
    values: Mapping[str, Any]

    def get(self, column: str) -> Any:
        """Return the value of `column`, None where it is absent."""
        return self.values.get(column) if column else None

    def fail(self, column: str, value: object, why: str) -> NoReturn:
        """Raise DataError naming the place, the column and its value, cut where it is long."""
        shown = repr(value)
        if len(shown) > SHOWN_CHARACTERS:
            shown = shown[:SHOWN_CHARACTERS] + "..."
        raise DataError(f"{self.where}: {column} = {shown}: {why}")

    def text(self, column: str, value: object) -> str:
        """Return `value` where it is text that can be encoded."""
        if not isinstance(value, str):
            self.fail(column, value, "expected text")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            self.fail(column, value, "half of a surrogate pair is no character")
        return value


def records(config: DataConfig) -> Iterator[Row]:
    """Yield the rows of a JSONL or `datasets` source, in the order of its files, `limit` of each.

    Raises DataError for a file that cannot be read or is empty, ConfigError for a source that has no rows.
    """
    if config.source == "suite":
        raise ConfigError("source = 'suite' is drawn by lhrm_train.suite; there is nothing to read")
    for name in config.files:
        rows = _jsonl_rows(Path(name)) if config.source == "jsonl" else _dataset_rows(name, config.split)
        empty = True
        for row in itertools.islice(rows, config.limit or None):
            empty = False
            yield row
        if empty:
            raise DataError(f"{name}: holds no rows")


def _jsonl_rows(path: Path) -> Iterator[Row]:
    number = 0
    try:
        with _open_text(path) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _json_row(f"{path}:{number}", line)
    except (OSError, EOFError, zlib.error) as exc:
        raise DataError(f"{path}: cannot be read: {exc}") from exc
    except UnicodeDecodeError as exc:
        raise DataError(f"{path}: not UTF-8 after line {number}: {exc.reason}") from exc


def _open_text(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8-sig"))
    if path.suffix == ".jsonl":
        return path.open(encoding="utf-8-sig")
    raise DataError(f"{path}: expected a .jsonl or .jsonl.gz file")


def _json_row(where: str, line: str) -> Row:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    try:
        values = json.loads(line, parse_constant=refuse)
    except (ValueError, RecursionError) as exc:
        raise DataError(f"{where}: not valid JSON: {exc}: {line.strip()[:SHOWN_CHARACTERS]!r}") from exc
    if not isinstance(values, dict):
        raise DataError(f"{where}: expected a JSON object, found {line.strip()[:SHOWN_CHARACTERS]!r}")
    return Row(where, values)


def package(name: str, source: str) -> Any:
    """Import the package that `source` needs. Raises ConfigError saying how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        extra = "gym" if source == "gym" else "train"
        raise ConfigError(f"source = {source!r} needs the package {name}: pip install 'lhrm[{extra}]' ({exc})") from exc


def _dataset_rows(name: str, split: str) -> Iterator[Row]:
    datasets = package("datasets", "datasets")
    try:
        table = _load_dataset(datasets, name, split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as exc:
        why = " ".join(str(exc).split())  # some of these have several lines
        raise DataError(f"{name}: split {split!r} cannot be loaded: {why}") from exc
    for number, values in enumerate(table):
        yield Row(f"{name}[{split}]:{number}", values)


def _load_dataset(datasets: Any, name: str, split: str) -> Any:
    path = Path(name)
    if path.is_file():
        return datasets.load_dataset(str(path.parent), data_files={split: path.name}, split=split)
    if not path.is_dir():
        repository, _, subset = name.partition(":")
        return datasets.load_dataset(repository, subset or None, split=split)
    if not ((path / "state.json").is_file() or (path / "dataset_dict.json").is_file()):
        return datasets.load_dataset(name, split=split)
    table = datasets.load_from_disk(name)
    if not isinstance(table, datasets.DatasetDict):
        return table
    if split not in table:
        raise ValueError(f"it has {', '.join(table)}")
    return table[split]
