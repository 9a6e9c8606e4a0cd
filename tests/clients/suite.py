"""Install each client in an environment of its own, start one server on the nano, and run every client's check.

``python tests/clients/suite.py [NAME ...]``: all clients, or those named. Environments stay in ``.clients/``.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PLACE = ROOT / ".clients"
SERVER_LOG = PLACE / "server.log"
PYTHON = {
    "openai": (("openai==3.54.0",), "openai_check.py"),
    "openai-previous": (("openai==2.54.0",), "openai_check.py"),
    "litellm": (("litellm==1.106.2", "mcp==2.3.0"), "litellm_check.py"),  # its handling of tools imports mcp
    "langchain": (("langchain-openai==1.7.3",), "langchain_check.py"),
    "schemathesis": (("schemathesis==4.32.5",), "fuzz_check.py"),
}
NODE = {
    "node": (("openai@7.57.0",), "openai_check.mjs"),
    "ai-sdk": (("ai@6.0.324", "@ai-sdk/openai-compatible@2.0.91", "zod@4.6.7"), "ai_sdk_check.mjs"),
}
START_S = 180.0
ENVIRONMENT = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # no look at the internet


def install_python(name: str, requirements: tuple[str, ...]) -> list[str]:
    """Return the command prefix of an environment that has `requirements`."""
    folder, stamp = PLACE / name, PLACE / name / ".installed"
    if not stamp.is_file() or stamp.read_text() != " ".join(requirements):
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements], check=True)
        stamp.write_text(" ".join(requirements))
    return [str(folder / "bin" / "python")]


def node_is_there() -> bool:
    """Tell whether Node is installed; that it is not is a failure under CI."""
    if shutil.which("node") and shutil.which("npm"):
        return True
    if os.environ.get("CI"):
        raise SystemExit("clients: node and npm are missing")
    print("clients: node is not installed, its clients are skipped")
    return False


def install_node(name: str, packages: tuple[str, ...], script: str) -> list[str]:
    """Return the command of the check in an environment that has `packages`."""
    folder, stamp = PLACE / name, PLACE / name / ".installed"
    if not stamp.is_file() or stamp.read_text() != " ".join(packages):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "package.json").write_text('{"private": true, "type": "module"}\n')
        subprocess.run(["npm", "install", "--silent", "--no-package-lock", *packages], cwd=folder, check=True)
        stamp.write_text(" ".join(packages))
    shutil.copyfile(HERE / script, folder / "check.mjs")  # modules are found beside the script
    return ["node", str(folder / "check.mjs")]


def commands(wanted: list[str]) -> dict[str, list[str]]:
    """Install what is wanted and return the command of each check."""
    known = [*PYTHON, *NODE]
    if unknown := [name for name in wanted if name not in known]:
        raise SystemExit(f"clients: unknown {unknown[0]!r}; known: {', '.join(known)}")
    chosen = wanted or known
    found = {
        name: [*install_python(name, requirements), str(HERE / script)]
        for name, (requirements, script) in PYTHON.items()
        if name in chosen
    }
    if any(name in chosen for name in NODE) and node_is_there():
        found |= {name: install_node(name, *client) for name, client in NODE.items() if name in chosen}
    return found


@contextmanager
def server() -> Iterator[str]:
    """Run the gateway with the real engine on the shipped nano; give its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "lhrm_server", "--model", "nano", "--port", str(port)]
    with SERVER_LOG.open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return once the server answers. Raises SystemExit when it ends or takes too long."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"clients: the server ended with {process.returncode}; its log: {SERVER_LOG}")
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise SystemExit(f"clients: the server was not ready in {START_S:.0f} s; its log: {SERVER_LOG}")


def main(wanted: list[str]) -> int:
    """Run the checks; the exit code tells whether all passed."""
    checks = commands(wanted)
    failed = []
    with server() as url:
        for name, command in checks.items():
            done = subprocess.run([*command, url, "lhrm-nano"], env=ENVIRONMENT, timeout=300, check=False)
            if done.returncode:
                failed.append(name)
    if failed:
        print(f"clients: the server's log: {SERVER_LOG}")
    print(f"clients={len(checks)} failed={len(failed)} {' '.join(failed)}".rstrip())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
