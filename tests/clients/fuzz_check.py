"""Requests made from the server's own OpenAPI document: none may end in a server error or in an undocumented reply."""

import re
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
    done = subprocess.run(command, timeout=SECONDS, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    report = done.stdout.decode()
    counts = re.search(r"\d+ generated, \d+ passed", report)
    if done.returncode or counts is None:
        print(report)
        return done.returncode or 1
    print(f"schemathesis {version('schemathesis')}: as expected, {counts[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
