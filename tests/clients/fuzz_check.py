"""Requests made from the server's own OpenAPI document: none may end in a server error or in an undocumented reply."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

EXAMPLES = 120
SECONDS = 240


def main(url: str, _: str) -> int:
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{url}/openapi.json",
        "--checks=all",
        # Rules between fields, such as top_logprobs without logprobs, cannot be written in JSON Schema.
        "--exclude-checks=positive_data_acceptance",
        f"--max-examples={EXAMPLES}",
        f"--request-timeout={SECONDS / 4}",
        "--seed=1",
    ]
    return subprocess.run(command, timeout=SECONDS, check=False).returncode


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    if code == 0:
        print(f"schemathesis {version('schemathesis')}: as expected")
    sys.exit(code)
