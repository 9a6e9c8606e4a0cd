"""Rules that hold for the whole repository: sizes, imports, tags, files, versions and documented commands."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGES = ("lhrm_train", "server", "client", "loadtest", "setup")
HEAVY = ("torch", "transformers", "vllm", "accelerate", "matplotlib")
LIGHT_PACKAGES = {"lhrm_server": "server/lhrm_server", "lhrm_client": "client/lhrm_client"}
LIGHT_MODULES = ("lhrm_train", "lhrm_train.format", "lhrm_train.tool_format")
TAG = re.compile(r"</?(?:no_)?think>")


@cache
def tracked() -> list[Path]:
    """Files that git knows, and new ones that it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def sources() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in PACKAGES]


def imported_names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_rules_see_the_source():
    assert {"server/lhrm_server/engine.py", "lhrm_train/format.py", "setup/setup_env.py"} <= set(
        map(relative, sources())
    )


def test_source_files_stay_under_400_lines():
    assert {relative(p): n for p in sources() if (n := len(p.read_text().splitlines())) >= 400} == {}


def test_functions_stay_under_60_lines_and_a_main_under_150():
    long = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines >= (150 if node.name == "main" else 60):
                    long[f"{relative(path)}:{node.name}"] = lines
    assert long == {}


def test_every_module_says_its_responsibility():
    without = [relative(p) for p in sources() if not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))]
    assert without == []


def test_there_is_no_utils_module():
    assert [relative(p) for p in tracked() if p.stem in {"utils", "helpers", "misc", "common"}] == []


def test_only_the_embedded_engine_imports_vllm():
    importing = {relative(p) for p in sources() if "vllm" in imported_names(p)}
    assert importing == {"server/lhrm_server/engine_vllm.py", "server/lhrm_server/vllm_sessions.py"}
    # The second names vLLM's types, and imports nothing when it runs.
    said = subprocess.run(
        [sys.executable, "-c", "import sys, lhrm_server.vllm_sessions; print('vllm' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "False\n"


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("server", {"lhrm_server", "lhrm_train"}),
        ("client", {"lhrm_client"}),
        ("loadtest", {"lhrm_loadtest", "lhrm_train"}),
        ("lhrm_train", {"lhrm_train"}),
        ("setup", set()),
    ],
)
def test_imports_between_packages_go_one_way(package: str, allowed: set[str]):
    ours = {"lhrm_server", "lhrm_train", "lhrm_client", "lhrm_loadtest"}
    for path in sources():
        if path.relative_to(ROOT).parts[0] == package:
            assert imported_names(path) & ours <= allowed, relative(path)


def test_the_server_takes_only_the_formats_from_training():
    formats = {f"lhrm_train.{name}" for name in ("format", "shipped_delta", "tool_format")}
    for path in sources():
        if path.relative_to(ROOT).parts[0] != "server":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lhrm_train"):
                assert node.module in formats, relative(path)


def modules_of(package: str, folder: str) -> list[str]:
    return [f"{package}.{path.stem}" for path in sorted((ROOT / folder).glob("*.py")) if path.stem != "__init__"]


@pytest.mark.parametrize("package", LIGHT_PACKAGES)
def test_light_modules_load_nothing_heavy(package: str):
    modules = [package, *modules_of(package, LIGHT_PACKAGES[package]), *LIGHT_MODULES]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


def test_the_load_test_takes_questions_and_scorers_from_training_only_when_they_are_asked_for():
    modules = ["lhrm_loadtest", *modules_of("lhrm_loadtest", "loadtest/lhrm_loadtest")]
    names = ("torch", "transformers", "vllm", "lhrm_train", "lhrm_server", "reasoning_gym")
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "from lhrm_loadtest.grade import check_scorers\n"
        "from lhrm_loadtest.sources import read_source\n"
        f"loaded = lambda: [name for name in {names!r} if name in sys.modules]\n"
        "before = loaded()\n"
        "check_scorers(read_source('nano', 3, 0))\n"
        "print(before, loaded())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[] ['lhrm_train']"


def test_importing_the_client_leaves_the_servers_packages_alone():
    names = ("fastapi", "uvicorn", "tokenizers", "openai", "lhrm_server", "lhrm_train")
    code = f"import sys, lhrm_client; print([name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_middleware_is_pure_asgi():
    assert [relative(p) for p in sources() if "BaseHTTPMiddleware" in p.read_text()] == []


def tag_strings(path: Path) -> list[str]:
    """String constants that hold a tag; docstrings are documentation."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in documentation
        and TAG.search(node.value)
    ]


def test_tag_strings_live_in_the_format_module_only():
    found = {relative(p): tags for p in sources() if (tags := tag_strings(p))}
    assert set(found) == {"lhrm_train/format.py"}


def test_no_file_is_larger_than_15_megabytes():
    assert [relative(p) for p in tracked() if p.stat().st_size > 15_000_000] == []


def test_no_link_is_tracked():
    # A linked environment would replace the one of everybody who pulls.
    assert [str(path) for path in tracked() if path.is_symlink()] == []


def test_the_changelog_starts_with_the_version_of_the_package():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    found = re.search(r"^## \[?v?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert found
    assert found[1] == version


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_make_help_lists_every_target():
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[0] for line in shown.splitlines()} == make_targets()


def code_in(document: str) -> str:
    """Return the fenced and inline code of a Markdown text."""
    fenced = re.findall(r"```.*?```", document, re.DOTALL)
    inline = re.findall(r"`[^`\n]+`", re.sub(r"```.*?```", "", document, flags=re.DOTALL))
    return "\n".join([*fenced, *inline])


def test_every_make_command_in_the_documents_exists():
    texts = [code_in(p.read_text(encoding="utf-8")) for p in tracked() if p.suffix == ".md"]
    texts.append((ROOT / ".ci" / "run").read_text())
    named = set(re.findall(r"(?<![\w-])make ([a-z][a-z-]*)", "\n".join(texts)))
    assert {"serve", "test"} <= named
    assert named <= make_targets()


def test_shell_commands_exist():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for command, target in scripts.items():
        module = target.partition(":")[0]
        code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0, command


def test_the_pytorch_index_is_named_in_one_place():
    index = "download.pytorch" + ".org"
    assert [relative(p) for p in tracked() if p.suffix != ".safetensors" and index in p.read_text(errors="ignore")] == [
        "setup/setup_env.py"
    ]
