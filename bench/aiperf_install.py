"""AIPerf in an environment of its own: what it depends on must not enter ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from lhrm_loadtest.errors import LoadTestError

from bench.judge_process import last_line

REQUIREMENT = "aiperf==0.13.0"
FOLDER_NAME, LOG_NAME = "aiperf", "aiperf-install.txt"


def installed(out: Path) -> str:
    """Return AIPerf's executable below `out`, installed there the first time. Raises LoadTestError."""
    program = out / FOLDER_NAME / "bin" / "aiperf"
    if not program.is_file():
        _install(out / FOLDER_NAME, out / LOG_NAME)
    return named(str(program))


def named(program: str) -> str:
    """Return the absolute path of an executable that is named by path or found on PATH. Raises LoadTestError."""
    found = shutil.which(program)
    if found is None:
        raise LoadTestError(f"{program} is no executable")
    return os.path.abspath(found)


def _install(environment: Path, log: Path) -> None:
    pip = [
        str(environment / "bin" / "python"),
        "-I",
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
    ]
    with log.open("w", encoding="utf-8") as out:
        for command in ([sys.executable, "-m", "venv", str(environment)], [*pip, REQUIREMENT]):
            if subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False).returncode:
                raise LoadTestError(
                    f"{REQUIREMENT} cannot be installed: {last_line(log)}; --aiperf PATH takes one that is; see {log}"
                )
