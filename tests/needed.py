"""What a test needs beside the project: missing, it fails the test under CI and skips it elsewhere."""

from __future__ import annotations

import os
import shutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Fail the test under CI, where everything is installed; skip it elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI is set")
    pytest.skip(what)


def program(name: str) -> str:
    """Return the path of a program."""
    return shutil.which(name) or missing(f"{name} is not on the PATH")


def package(name: str) -> ModuleType:
    """Import a package that no extra of the tests installs for sure."""
    if find_spec(name.partition(".")[0]) is None:
        missing(f"{name} is not installed")
    return import_module(name)


def device(path: str) -> Path:
    """Return a device file."""
    return Path(path) if Path(path).exists() else missing(f"there is no {path}")
