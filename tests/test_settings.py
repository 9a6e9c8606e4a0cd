from dataclasses import FrozenInstanceError

import pytest
from lhrm_server.control import Wish
from lhrm_server.errors import ModelNotFoundError
from lhrm_server.policy import ModePolicy
from lhrm_server.setting_checks import SettingsError
from lhrm_server.settings import Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_name", " "),
        ("port", 65536),
        ("port", -1),
        ("max_choices", 0),
        ("max_choices", 17),
        ("max_body_bytes", 0),
        ("header_hold_s", 0),
        ("keepalive_s", -1),
        ("max_concurrent_requests", 0),
        ("shutdown_grace_s", -0.1),
        ("shutdown_grace_s", float("inf")),
    ],
)
def test_bad_value_is_named(name, value):
    with pytest.raises(SettingsError, match=f"{name}={value!r}"):
        Settings(**{"model_name": "m", name: value})


def test_aliases_and_defaults():
    settings = Settings("m")
    assert (settings.think_alias, settings.no_think_alias) == ("m-think", "m-no-think")
    assert (settings.host, settings.port, settings.policy) == ("127.0.0.1", 8000, ModePolicy())
    with pytest.raises(FrozenInstanceError):
        settings.port = 1


def test_model_names_and_what_they_ask_for():
    settings = Settings("m")
    names = {"m": None, "m-think": Wish.THINK, "m-no-think": Wish.NO_THINK}
    assert settings.served_names == names
    assert {name: settings.alias_wish(name) for name in names} == names


def test_an_alias_that_requests_may_not_use_is_not_listed_but_known():
    settings = Settings("m", policy=ModePolicy(allowed_modes=(Wish.AUTO, Wish.NO_THINK)))
    assert list(settings.served_names) == ["m", "m-no-think"]
    assert settings.alias_wish("m-think") is Wish.THINK


@pytest.mark.parametrize("name", ["", "M", "m-Think", "m-think-think", "gpt-4"])
def test_unknown_model(name):
    with pytest.raises(ModelNotFoundError) as caught:
        Settings("m").alias_wish(name)
    assert (caught.value.status, caught.value.param, caught.value.code) == (404, "model", "model_not_found")
