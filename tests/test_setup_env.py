"""The set-up program with a recorded pip, and what the real environment holds."""

import importlib.metadata
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "setup"))
import setup_env

CPU = ROOT / "constraints" / "cpu.txt"


class Recorder:
    """Stands for running commands: notes them, makes the interpreter file, fails where told to."""

    def __init__(self, fails: str | None = None) -> None:
        self.fails = fails
        self.commands: list[list[str]] = []

    def __call__(self, command, hold_errors):
        self.commands.append(list(command))
        if "venv" in command:
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True, exist_ok=True)
            python.touch()
        if self.fails is not None and self.fails in " ".join(command):
            return setup_env.Outcome(1, "noise\nERROR: no such thing\n" if hold_errors else "")
        return setup_env.Outcome(0)

    def pip_calls(self) -> list[str]:
        return [" ".join(c[c.index("pip") + 2 :]) for c in self.commands if "pip" in c]


def set_up(tmp_path: Path, *arguments: str, run: Recorder, cuda: bool = False) -> int:
    return setup_env.main(["--venv", str(tmp_path / "venv"), *arguments], run=run, probe=lambda: cuda)


def test_a_cpu_machine_gets_the_closed_set_without_dependencies(tmp_path: Path):
    run = Recorder()
    assert set_up(tmp_path, run=run) == 0
    calls = run.pip_calls()
    assert calls[0] == f"install --no-deps {setup_env.pinned(CPU, 'torch')}"
    assert calls[1] == f"install --no-deps -r {CPU}"
    assert calls[2] == "uninstall --quiet --yes torchvision torchaudio torchcodec"
    assert calls[-1] == f"install --no-deps --no-build-isolation -e {ROOT}"
    assert all("--no-deps" in call for call in calls if call.startswith("install"))
    assert not any("vllm==" in call for call in calls)


def test_a_cuda_machine_gets_the_gpu_build_with_dependencies(tmp_path: Path):
    run = Recorder()
    assert set_up(tmp_path, run=run, cuda=True) == 0
    gpu = [call for call in run.pip_calls() if "vllm==0.32.0" in call]
    assert len(gpu) == 1
    assert "--no-deps" not in gpu[0]
    assert f"-c {ROOT / 'constraints' / 'gpu.txt'}" in gpu[0]
    assert f"-c {ROOT / 'constraints' / 'train.txt'}" in gpu[0]
    assert f"{ROOT}[server,train,loadtest]" in gpu[0]
    assert not any("cpu" in call or "uninstall" in call for call in run.pip_calls())


@pytest.mark.parametrize(
    ("asked", "cuda", "chosen"),
    [
        ("auto", True, "gpu"),
        ("auto", False, "cpu"),
        ("cpu", True, "cpu"),
        ("gpu", False, "gpu"),
    ],
)
def test_the_device_is_probed_only_when_not_asked_for(asked: str, cuda: bool, chosen: str):
    assert setup_env.choose_device(asked, lambda: cuda) == chosen


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo 'GPU 0: NVIDIA H200 (UUID: GPU-1)'", True),
        ("echo 'No devices were found'", False),
        ("echo 'GPU access blocked'; exit 9", False),
    ],
)
def test_the_probe_believes_nvidia_smi_only_with_a_device(tmp_path: Path, monkeypatch, script: str, found: bool):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert setup_env.has_cuda() is found


def test_the_probe_without_nvidia_smi_finds_nothing(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert setup_env.has_cuda() is False


def test_an_index_without_the_cpu_torch_falls_back_to_pytorchs_own(tmp_path: Path, capsys):
    class NoTorch(Recorder):
        def __call__(self, command, hold_errors):
            outcome = super().__call__(command, hold_errors)
            missing = any(part.startswith("torch==") for part in command) and "--index-url" not in command
            return setup_env.Outcome(1, "ERROR: No matching distribution found\n") if missing else outcome

    run = NoTorch()
    assert set_up(tmp_path, run=run) == 0
    torch = setup_env.pinned(CPU, "torch")
    assert run.pip_calls()[1] == f"install --no-deps {torch} --index-url {setup_env.TORCH_CPU_INDEX}"
    assert f"gave no {torch}" in capsys.readouterr().out


def test_a_failure_is_one_line_and_leaves_no_stamp(tmp_path: Path, capsys):
    assert set_up(tmp_path, run=Recorder(fails="torch==")) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("setup: error: torch==")
    assert errors[0].endswith("ERROR: no such thing")
    assert not (tmp_path / "venv" / ".lhrm-setup").exists()


def test_a_missing_venv_module_names_the_package(tmp_path: Path, capsys):
    assert set_up(tmp_path, run=Recorder(fails="-m venv")) == 1
    assert "apt-get install python3" in capsys.readouterr().err


def test_a_second_run_does_nothing(tmp_path: Path, capsys):
    assert set_up(tmp_path, "--dev", run=Recorder()) == 0
    capsys.readouterr()
    for arguments in (["--dev"], []):
        again = Recorder()
        assert set_up(tmp_path, *arguments, run=again) == 0
        assert again.commands == []
    assert capsys.readouterr().out == ""


def test_another_device_or_more_tools_are_installed_on_top(tmp_path: Path):
    assert set_up(tmp_path, run=Recorder()) == 0
    for arguments in (["--dev"], ["--device", "gpu"]):
        again = Recorder()
        assert set_up(tmp_path, *arguments, run=again) == 0
        assert again.pip_calls()
        assert not any("venv" in c for c in again.commands[1:])


def test_the_set_up_goes_on_without_reasoning_gym(tmp_path: Path, capsys):
    run = Recorder(fails="gym.txt")
    assert set_up(tmp_path, "--dev", run=run) == 0
    assert "going on without reasoning-gym" in capsys.readouterr().out
    names = [call.rsplit("/", 1)[-1] for call in run.pip_calls() if " -r " in call]
    assert names == ["cpu.txt", "train.txt", "dev.txt", "gym.txt"]


def test_changed_pins_are_installed(tmp_path: Path):
    plan = setup_env.Plan(tmp_path, tmp_path / "venv", "cpu", dev=False)
    (tmp_path / "constraints").mkdir()
    (tmp_path / "pyproject.toml").write_text("")
    plan.constraints("cpu").write_text("torch==1\n")
    before = plan.fingerprint()
    plan.constraints("cpu").write_text("torch==2\n")
    assert plan.fingerprint() != before


def test_the_probe_and_the_program_need_no_third_party_package():
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "setup" / "setup_env.py"), "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "--device" in done.stdout


@pytest.mark.parametrize("name", ["cpu", "gpu", "train", "gym", "dev"])
def test_constraints_are_plain_pins(name: str):
    lines = (ROOT / "constraints" / f"{name}.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins
    for line in pins:
        package, _, version = line.partition("==")
        assert package.replace("-", "").replace("_", "").replace(".", "").isalnum(), line
        assert version, line
        assert not set(version) & set(" ;,<>=@*"), line
    assert len({line.partition("==")[0].lower() for line in pins}) == len(pins)


@pytest.mark.parametrize("name", ["cpu", "train", "gym", "dev"])
def test_the_cpu_sets_leave_out_what_breaks_transformers(name: str):
    pins = (ROOT / "constraints" / f"{name}.txt").read_text().splitlines()
    assert [line for line in pins if line.partition("==")[0] in setup_env.BROKEN_ON_CPU] == []


def test_the_environment_follows_the_cpu_pins():
    if find_spec("vllm") is None or "cpu" not in importlib.metadata.version("torch"):
        pytest.skip("not the CPU environment")
    for line in CPU.read_text().splitlines():
        if not line.startswith("#"):
            package, _, version = line.partition("==")
            assert importlib.metadata.version(package) == version, package


def test_the_packages_that_break_transformers_are_absent():
    if "cpu" not in importlib.metadata.version("torch"):
        pytest.skip("the CUDA set has matching builds of them")
    assert [name for name in setup_env.BROKEN_ON_CPU if find_spec(name) is not None] == []


def test_model_classes_of_transformers_import():
    code = (
        "from transformers import AutoModelForCausalLM, LlamaForCausalLM, Qwen3ForCausalLM, PreTrainedTokenizerFast\n"
        "print(LlamaForCausalLM.__name__, Qwen3ForCausalLM.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=True)
    assert done.stdout.split() == ["LlamaForCausalLM", "Qwen3ForCausalLM"]
