import hashlib

import pytest
from lhrm_server.operators import Operators, load_operators
from lhrm_server.setting_checks import SettingsError


def scope(authorization=None, client=("198.51.100.7", 5), **headers):
    named = {"authorization": authorization} if authorization is not None else {}
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in {**named, **headers}.items()]
    return {"type": "http", "headers": pairs, "client": client}


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "keys"
    path.write_text("first-key\n\n  second-key \n")
    return load_operators(path, None)


def test_by_default_nobody_has_rights():
    assert not Operators().allow(scope("Bearer "))
    assert not Operators().allow(scope(client=None))


def test_only_digests_are_kept(keys):
    assert keys.key_digests == tuple(hashlib.sha256(key).digest() for key in (b"first-key", b"second-key"))
    assert "first-key" not in repr(keys)


@pytest.mark.parametrize(
    ("authorization", "allowed"),
    [
        ("Bearer first-key", True),
        ("bearer second-key", True),
        ("Bearer  first-key ", True),
        ("Bearer first-key2", False),
        ("Bearer FIRST-KEY", False),
        ("Bearer ", False),
        ("first-key", False),
        ("Basic first-key", False),
        ("Bearer f\u00e9", False),
        (None, False),
    ],
)
def test_keys(keys, authorization, allowed):
    assert keys.allow(scope(authorization)) is allowed


def test_two_authorizations_are_none(keys):
    twice = scope("Bearer first-key")
    twice["headers"] *= 2
    assert not keys.allow(twice)


@pytest.mark.parametrize(
    ("client", "allowed"),
    [
        (("10.1.2.3", 80), True),
        (("11.0.0.1", 80), False),
        (("::ffff:10.1.2.3", 80), True),
        (("2001:db8::1", 80), True),
        (("2001:db9::1", 80), False),
        (("testclient", 80), False),
        (None, False),
    ],
)
def test_trusted_proxies(client, allowed):
    assert load_operators(None, "10.0.0.0/8, 2001:db8::/32").allow(scope(client=client)) is allowed


def test_a_forwarded_address_is_not_believed():
    operators = load_operators(None, "10.0.0.0/8")
    assert not operators.allow(scope(**{"x-forwarded-for": "10.0.0.1", "forwarded": "for=10.0.0.1"}))


@pytest.mark.parametrize("networks", ["", "10.0.0.1/8", "proxy.example", "10.0.0.0/8,,::1"])
def test_networks_that_are_none(networks):
    with pytest.raises(SettingsError, match="trusted_proxies="):
        load_operators(None, networks)


@pytest.mark.parametrize("content", [b"", b" \n\n", b"two words\n", "schl\u00fcssel".encode(), b"\xff"])
def test_a_key_file_that_cannot_work(tmp_path, content):
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="operator_keys=") as caught:
        load_operators(path, None)
    assert "words" not in str(caught.value)


def test_no_key_file(tmp_path):
    with pytest.raises(SettingsError, match="No such file"):
        load_operators(tmp_path / "none", None)
