"""The command line of lhrm-serve: what is given reaches the settings, flags over files over defaults."""

from dataclasses import fields

import pytest
from conftest import ROOT
from fastapi import FastAPI
from gateway_fixtures import load_tokenizer
from lhrm_server.cli import ModelNotFoundError, find_model, parse_arguments
from lhrm_server.control import Wish
from lhrm_server.engine_fake import FakeEngine
from lhrm_server.policy import ModePolicy
from lhrm_server.serve import GatewayServer, make_settings
from lhrm_server.setting_checks import SettingsError
from lhrm_server.settings import Settings

from lhrm_train.shipped_delta import note_built

TOKENIZER = load_tokenizer()


def settings(*arguments):
    return make_settings(parse_arguments(arguments), TOKENIZER)


def test_without_arguments_the_defaults_hold():
    found, default = settings(), Settings(TOKENIZER.manifest.name)
    assert {f.name: getattr(found, f.name) for f in fields(Settings)} == {
        f.name: getattr(default, f.name) for f in fields(Settings)
    }


def test_what_is_given_reaches_the_settings():
    found = settings("--name", "m", "--port", "0", "--max-choices", "3", "--max-concurrent-requests", "9")
    assert (found.model_name, found.port, found.max_choices, found.max_concurrent_requests) == ("m", 0, 3, 9)


def test_policy_flags():
    policy = settings("--default-mode", "no_think", "--think-threshold", "0").policy
    assert policy == ModePolicy(Wish.NO_THINK, 0.0)


def test_the_policy_file_is_read_for_the_served_name(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('think_threshold = 0.3\nanswer_reserve = 8\n[models.m]\ndefault_mode = "think"\n')
    policy = settings("--policy", str(path)).policy
    assert (policy.default_mode, policy.think_threshold, policy.answer_reserve) == (Wish.AUTO, 0.3, 8)
    assert settings("--policy", str(path), "--name", "m").policy.default_mode is Wish.THINK
    flagged = settings("--policy", str(path), "--name", "m", "--default-mode", "auto", "--think-threshold", "0.9")
    assert (flagged.policy.default_mode, flagged.policy.think_threshold) == (Wish.AUTO, 0.9)


def test_a_policy_that_cannot_work_does_not_start(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('allowed_modes = ["think"]\n')
    with pytest.raises(SettingsError, match=r"policy\.toml: default_mode='auto'"):
        settings("--policy", str(path))


def test_operators(tmp_path):
    path = tmp_path / "keys"
    path.write_text("secret-of-operators\n")
    found = settings("--operator-keys", str(path), "--trusted-proxies", "10.0.0.0/8,::1").operators
    assert (len(found.key_digests), [str(network) for network in found.networks]) == (1, ["10.0.0.0/8", "::1/128"])


@pytest.mark.parametrize("arguments", [["--default-mode", "maybe"], ["--think-threshold", "high"], ["--nonsense"]])
def test_arguments_that_are_none(arguments, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(arguments)
    assert arguments[0] in capsys.readouterr().err


def test_models_by_name_and_by_path(tmp_path):
    assert find_model(str(tmp_path)) == tmp_path
    made = tmp_path / "models" / "lhrm-tiny"
    made.mkdir(parents=True)
    (made / "lhrm.json").write_text("{}")
    assert find_model("tiny", [tmp_path]) == made
    (tmp_path / "models" / "lhrm-empty").mkdir()
    (tmp_path / "models" / "lhrm-small" / "delta").mkdir(parents=True)
    for name in ("none", "empty"):
        with pytest.raises(ModelNotFoundError, match=rf"model '{name}' is not a directory; known short names: tiny$"):
            find_model(name, [tmp_path])


@pytest.mark.parametrize("by_path", [False, True])
def test_a_model_that_is_a_delta_only_has_to_be_built_first(tmp_path, by_path):
    shipped = tmp_path / "models" / "lhrm-small"
    (shipped / "delta").mkdir(parents=True)
    (shipped / "delta" / "delta.json").write_text("{}")
    name = str(shipped) if by_path else "small"
    with pytest.raises(ModelNotFoundError, match=r"lhrm-small holds a delta and no lhrm\.json; run `make small` first"):
        find_model(name, [tmp_path])
    (shipped / "lhrm.json").write_text("{}")
    note_built(shipped)
    assert find_model(name, [tmp_path]) == shipped
    (shipped / "delta" / "delta.json").write_text('{"newer": true}')
    with pytest.raises(ModelNotFoundError, match=r"was built from another delta than it holds; run `make small` first"):
        find_model(name, [tmp_path])
    note_built(shipped)
    assert find_model(name, [tmp_path]) == shipped


def test_a_delta_in_a_folder_of_another_name_has_no_recipe_of_make(tmp_path):
    (tmp_path / "foo" / "delta").mkdir(parents=True)
    (tmp_path / "foo" / "delta" / "delta.json").write_text("{}")
    with pytest.raises(ModelNotFoundError, match=r"build it \(docs/smol\.md\) first"):
        find_model(str(tmp_path / "foo"))


def test_the_example_policy_of_the_documents_is_a_policy(tmp_path):
    document = (ROOT / "docs" / "policy.md").read_text()
    path = tmp_path / "policy.toml"
    path.write_text(document.split("```toml\n")[1].split("```")[0])
    assert settings("--policy", str(path), "--name", "other").policy == ModePolicy(
        effort_budgets={"low": 256, "high": 4096}
    )
    nano = settings("--policy", str(path), "--name", "lhrm-nano").policy
    assert (nano.think_threshold, dict(nano.effort_budgets)) == (0.4, {"low": 32, "high": 128})


def test_no_header_replaces_the_address_of_a_connection():
    server = GatewayServer(FastAPI(), Settings("m"), FakeEngine(TOKENIZER))
    assert server.config.proxy_headers is False


def test_a_mistake_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_arguments(["--port", "abc"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said == "lhrm-serve: error: argument --port: invalid int value: 'abc' (see lhrm-serve --help)\n"
