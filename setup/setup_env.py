"""Make or refresh the project's virtual environment, for CPU or CUDA; needs only Python's standard library.

Run again it does nothing, unless the requirements, the Python version or the choice of device changed.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
GPU_ENGINE = "vllm==0.32.0"
BROKEN_ON_CPU = ("torchvision", "torchaudio", "torchcodec")
MIN_PYTHON = (3, 11)
DEVICES = ("cpu", "gpu")

Run = Callable[[Sequence[str], bool], "Outcome"]
"""Runs a command; the flag says whether its error output is held back. Replaced in tests."""


class SetupError(Exception):
    """The environment could not be made; the message is one line for the user."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended; `errors` is what it wrote to stderr, where that was held back."""

    code: int
    errors: str = ""


@dataclass(frozen=True)
class Plan:
    """What to install, and where."""

    root: Path
    venv: Path
    device: str
    dev: bool

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.venv / "bin" / "python"

    @property
    def stamp(self) -> Path:
        """The file that says which plan the environment already follows."""
        return self.venv / ".lhrm-setup"

    def constraints(self, name: str) -> Path:
        """The pinned set of that name."""
        return self.root / "constraints" / f"{name}.txt"

    def fingerprint(self) -> str:
        """Return a digest of everything the installation depends on."""
        digest = hashlib.sha256(f"{sys.version_info[:3]} {self.device} {self.root} ".encode())
        names = (self.device, "train", "gym", "dev") if self.dev else (self.device,)
        for path in (*map(self.constraints, names), self.root / "pyproject.toml", Path(__file__)):
            digest.update(path.read_bytes())
        return digest.hexdigest()


def run_command(command: Sequence[str], hold_errors: bool) -> Outcome:
    """Run `command` with its output visible, or with stderr held back for the caller."""
    done = subprocess.run(command, stderr=subprocess.PIPE if hold_errors else None, text=True, check=False)
    return Outcome(done.returncode, done.stderr or "")


def has_cuda() -> bool:
    """Tell whether the NVIDIA driver lists a device."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    try:
        done = subprocess.run([tool, "--list-gpus"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and "GPU" in done.stdout


def choose_device(asked: str, probe: Callable[[], bool]) -> str:
    """Return ``cpu`` or ``gpu``; `asked` may be ``auto``."""
    if asked in DEVICES:
        return asked
    return "gpu" if probe() else "cpu"


def is_current(plan: Plan) -> bool:
    """Tell whether the environment already follows `plan`; one with the dev tools serves a plan without them."""
    if not plan.python.exists() or not plan.stamp.exists():
        return False
    done = plan.stamp.read_text(encoding="utf-8").split()
    with_dev = Plan(plan.root, plan.venv, plan.device, dev=True)
    return plan.fingerprint() in done or with_dev.fingerprint() in done


def install(plan: Plan, run: Run) -> None:
    """Bring the environment to `plan`. Raises SetupError."""
    if not works(plan.python, run):
        make_venv(plan, run)
    # Without a stamp, an interrupted run is repeated.
    plan.stamp.unlink(missing_ok=True)
    if plan.device == "cpu":
        install_cpu(plan, run)
    else:
        install_gpu(plan, run)
    if plan.dev:
        install_dev(plan, run)
    say("installing lhrm")
    pip(plan, run, "install", "--no-deps", "--no-build-isolation", "-e", str(plan.root))
    plan.stamp.write_text(plan.fingerprint() + "\n", encoding="utf-8")


def install_dev(plan: Plan, run: Run) -> None:
    """Install what training on other bases and data needs, and the development tools; reasoning-gym where it builds."""
    say("installing the training and development tools")
    for name in ("train", "dev"):
        pip(plan, run, "install", "--no-deps", "-r", str(plan.constraints(name)))
    gym = pip_command(plan, "install", "--no-deps", "--no-build-isolation", "-r", str(plan.constraints("gym")))
    done = run(gym, True)
    if done.code != 0:
        # Parts of it are built from source; only its own questions and lhrm-smol's data need it.
        say(f"going on without reasoning-gym, which needs Python's headers to build ({last_line(done.errors)})")


def works(python: Path, run: Run) -> bool:
    """Tell whether the environment has an interpreter of this Python version, with pip."""
    if not python.exists():
        return False
    check = f"import pip, sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    return run([str(python), "-c", check], True).code == 0


def make_venv(plan: Plan, run: Run) -> None:
    """Create the virtual environment, in place of a broken one."""
    say(f"making {plan.venv}")
    done = run([sys.executable, "-m", "venv", "--clear", str(plan.venv)], True)
    if done.code != 0:
        major, minor = sys.version_info[:2]
        hint = f"on Debian: apt-get install python{major}.{minor}-venv"
        raise SetupError(f"{sys.executable} -m venv {plan.venv} failed ({hint}): {last_line(done.errors)}")


def install_cpu(plan: Plan, run: Run) -> None:
    """Install the closed CPU set, and take out the packages that break it."""
    constraints = plan.constraints("cpu")
    install_cpu_torch(plan, run, pinned(constraints, "torch"))
    say("installing the pinned set for CPU")
    pip(plan, run, "install", "--no-deps", "-r", str(constraints))
    pip(plan, run, "uninstall", "--quiet", "--yes", *BROKEN_ON_CPU, hold_errors=True)


def install_cpu_torch(plan: Plan, run: Run, torch: str) -> None:
    """Install PyTorch's CPU build from the configured index or, where that has none, from PyTorch's own."""
    say(f"installing {torch} (about 200 MB)")
    command = pip_command(plan, "install", "--no-deps", torch)
    first = run(command, True)
    if first.code == 0:
        return
    say(f"the configured package index gave no {torch} ({last_line(first.errors)}); trying PyTorch's CPU index")
    second = run([*command, "--index-url", TORCH_CPU_INDEX], True)
    if second.code != 0:
        raise SetupError(f"{torch} could not be installed: {last_line(second.errors)}")


def install_gpu(plan: Plan, run: Run) -> None:
    """Install the CUDA build of vLLM with all it asks for, and the extras."""
    say(f"installing {GPU_ENGINE} for CUDA and the pinned set")
    extras = f"{plan.root}[server,train,loadtest]"
    pip(
        plan,
        run,
        "install",
        GPU_ENGINE,
        "-c",
        str(plan.constraints("gpu")),
        "-c",
        str(plan.constraints("train")),
        "-e",
        extras,
    )


def pinned(constraints: Path, name: str) -> str:
    """Return the ``name==version`` line of a constraints file."""
    for line in constraints.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}=="):
            return line.strip()
    raise SetupError(f"{constraints} pins no {name}")


def pip_command(plan: Plan, *arguments: str) -> list[str]:
    """Return the command line of the environment's pip."""
    return [str(plan.python), "-m", "pip", "--disable-pip-version-check", *arguments]


def pip(plan: Plan, run: Run, *arguments: str, hold_errors: bool = False) -> None:
    """Run the environment's pip. Raises SetupError when it fails."""
    done = run(pip_command(plan, *arguments), hold_errors)
    if done.code != 0:
        raise SetupError(f"pip {' '.join(arguments)} failed with code {done.code} {last_line(done.errors)}".rstrip())


def last_line(text: str) -> str:
    """Return the last line of `text` that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def say(message: str) -> None:
    """Print one line of progress."""
    print(f"setup: {message}", flush=True)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="setup_env.py", description="Make or refresh the virtual environment.")
    parser.add_argument("--device", choices=("auto", *DEVICES), default="auto", help="default: gpu where CUDA is found")
    parser.add_argument("--dev", action="store_true", help="also what `make check` and `make test` need")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="default: %(default)s")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, run: Run = run_command, probe: Callable[[], bool] = has_cuda) -> int:
    """Run the set-up; return the exit code."""
    options = parse_arguments(arguments)
    if sys.version_info < MIN_PYTHON:
        print(f"setup: error: Python 3.11 or later is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 1
    plan = Plan(ROOT, options.venv.absolute(), choose_device(options.device, probe), options.dev)
    if is_current(plan):
        return 0
    started = time.monotonic()
    try:
        install(plan, run)
    except (SetupError, OSError) as exc:
        print(f"setup: error: {exc}", file=sys.stderr)
        return 1
    say(f"{plan.device} environment ready in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
