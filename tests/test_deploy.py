"""The files in deploy/ against the tools and the gateway they are for."""

from __future__ import annotations

import re
import subprocess

import httpx
import pytest
from conftest import ROOT
from fake_gateway import fake_gateway

from tests.needed import program

PROMETHEUS = ROOT / "deploy" / "prometheus.yml"


@pytest.fixture(scope="module")
def promtool() -> str:
    return program("promtool")


def test_promtool_accepts_the_scrape_file(promtool):
    done = subprocess.run([promtool, "check", "config", str(PROMETHEUS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()


def test_scrape_file_points_at_the_default_server(loop_thread, nano_tokenizer):
    text = PROMETHEUS.read_text(encoding="utf-8")
    (target,) = re.findall(r'targets: \["([^"]+)"\]', text)
    (path,) = re.findall(r"metrics_path: (\S+)", text)
    from lhrm_server.settings import Settings

    assert target == f"{Settings.host}:{Settings.port}"
    with fake_gateway(loop_thread, nano_tokenizer) as (url, _):
        answer = httpx.get(url + path)
    assert answer.status_code == 200
    assert "lhrm_requests_total" in answer.text


def test_readme_names_the_files_that_are_there():
    text = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w./-]+\.yml", text))
    assert {name.removeprefix("deploy/") for name in named} == {"prometheus.yml"}
    assert all((ROOT / "deploy" / name.removeprefix("deploy/")).is_file() for name in named)
