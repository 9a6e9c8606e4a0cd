import pytest
from lhrm_server.engine import EngineDeadError, EngineError
from lhrm_server.errors import (
    ContradictionError,
    EngineFailureError,
    GatewayError,
    OverloadedError,
    UnsupportedParameterError,
    error_body,
    http_error_body,
    validation_error,
)


def test_envelope():
    error = UnsupportedParameterError("n", "no.")
    assert error.body() == {
        "error": {
            "message": "n: no.",
            "type": "invalid_request_error",
            "param": "n",
            "code": "unsupported_parameter",
        }
    }
    assert (error.status, error.headers) == (400, {})


def test_both_fields_of_a_contradiction_are_named():
    assert ContradictionError("mode", ("a", "b")).body()["error"]["param"] == "a, b"


@pytest.mark.parametrize(
    ("cause", "status", "code"),
    [(EngineError("secret prompt"), 500, "engine_error"), (EngineDeadError("secret"), 503, "engine_unavailable")],
)
def test_engine_failures_do_not_tell_the_engines_words(cause, status, code):
    error = EngineFailureError(cause)
    assert (error.status, error.code, error.kind) == (status, code, "server_error")
    assert "secret" not in str(error.body())


def test_a_503_tells_when_to_come_back():
    assert OverloadedError("full").headers == {"Retry-After": "1"}
    assert EngineFailureError(EngineDeadError("x")).headers == {"Retry-After": "1"}


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (404, "invalid_request_error", "unknown_url"),
        (405, "invalid_request_error", "method_not_allowed"),
        (418, "invalid_request_error", None),
        (502, "server_error", None),
    ],
)
def test_framework_errors(status, kind, code):
    error = http_error_body(status, "GET", "/x")["error"]
    assert (error["type"], error["code"]) == (kind, code)
    assert error["message"]


def test_framework_validation_is_a_400_with_the_field():
    error = validation_error([{"loc": ("path", "id"), "msg": "bad"}])
    assert (error.status, error.param) == (400, "path.id")
    assert validation_error([]).status == 400


def test_every_error_has_an_object_body_and_a_4xx_or_5xx_status():
    def below(kind):
        return {kind, *(deeper for sub in kind.__subclasses__() for deeper in below(sub))}

    assert len(below(GatewayError)) > 8
    for kind in below(GatewayError):
        assert 400 <= kind.status < 600
    assert set(error_body("m", "t")["error"]) == {"message", "type", "param", "code"}
