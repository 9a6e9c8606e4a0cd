from dataclasses import FrozenInstanceError

import pytest
from lhrm_server.settings import Settings, SettingsError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_name", " "),
        ("port", 65536),
        ("port", -1),
        ("default_mode", "maybe"),
        ("think_threshold", 1.01),
        ("think_threshold", float("nan")),
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
    assert (settings.host, settings.port, settings.default_mode) == ("127.0.0.1", 8000, "auto")
    with pytest.raises(FrozenInstanceError):
        settings.port = 1
