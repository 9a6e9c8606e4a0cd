"""The OpenAPI 3.1 document of one gateway, made from the tables that check its requests."""

from __future__ import annotations

from collections.abc import Mapping

from .checks import NOTHING, Schema, integer
from .control import Wish
from .errors import (
    UNEXPECTED,
    BodyTooLargeError,
    EngineFailureError,
    ForbiddenError,
    GatewayError,
    InvalidRequestError,
    ModelNotFoundError,
    NotReadyError,
    OverloadedError,
)
from .gateway import Gateway, version
from .openapi_replies import REPLIES, ref
from .policy import FORCE_HEADER, MODE_HEADER
from .request_fields import field_rows
from .request_id import HEADER
from .settings import Settings
from .tokenize_api import CHAT_FIELDS, TEXT_FIELDS, detokenize_fields, fields_schema
from .wire import Json

JSON_TYPE, STREAM_TYPE, TEXT_TYPE = "application/json", "text/event-stream", "text/plain"
BODY_ERRORS = (InvalidRequestError, ModelNotFoundError, BodyTooLargeError, NotReadyError)
CHAT_ERRORS = (*BODY_ERRORS, ForbiddenError, OverloadedError, EngineFailureError)


def openapi_document(gateway: Gateway) -> Json:
    """Return the document: every route of the app, its fields with their bounds, its replies and errors."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lhrm",
            "version": version(),
            "description": "An OpenAI-compatible server of a model that decides per query whether thinking pays.",
        },
        "paths": {**_chat_paths(), **_model_paths(), **_token_paths(), **_operator_paths()},
        "components": {"schemas": {**REPLIES, **_request_schemas(gateway)}},
    }


def chat_request_schema(settings: Settings) -> Schema:
    """Return the schema of a chat request to this server."""
    properties = {row.name: row.schema for row in field_rows()}
    properties["model"] = {"type": "string", "enum": list(settings.served_names)}
    properties["n"] = {"anyOf": [integer(1, settings.max_choices).schema, {"type": "null"}]}
    return {
        "type": "object",
        "required": ["model", "messages"],
        "properties": properties,
        "additionalProperties": NOTHING,
    }


def _request_schemas(gateway: Gateway) -> Mapping[str, Schema]:
    known = [*gateway.settings.served_names, None]
    tokenize: Schema = {
        "anyOf": [
            _with_models(fields_schema(CHAT_FIELDS, "messages"), known),
            _with_models(fields_schema(TEXT_FIELDS, "prompt"), known),
        ]
    }
    detokenize = fields_schema(detokenize_fields(gateway.tokenizer.vocab_size), "tokens")
    return {
        "ChatRequest": chat_request_schema(gateway.settings),
        "TokenizeRequest": tokenize,
        "DetokenizeRequest": _with_models(detokenize, known),
    }


def _with_models(schema: Schema, known: list[str | None]) -> Schema:
    properties = schema["properties"]
    named = {**properties, "model": {"enum": known}} if isinstance(properties, dict) else {}
    return {**schema, "properties": named}


def _chat_paths() -> Json:
    modes = [wish.value for wish in Wish]
    return {
        "/v1/chat/completions": {
            "post": {
                "operationId": "createChatCompletion",
                "summary": "Answer a conversation; the model thinks where it, the request or the operator wants it.",
                "parameters": [
                    _header(MODE_HEADER, modes, "Asks for a mode; a field of the body that does so wins."),
                    _header(FORCE_HEADER, modes[1:], "Forces a mode; operators only, wins over everything."),
                ],
                "requestBody": _body("ChatRequest"),
                "responses": {
                    "200": {
                        **_reply("The completion; with stream: true its chunks as events.", "ChatCompletion"),
                        "content": {
                            JSON_TYPE: {"schema": ref("ChatCompletion")},
                            STREAM_TYPE: {"schema": {"type": "string"}},
                        },
                    },
                    **_errors(CHAT_ERRORS),
                },
            }
        }
    }


def _model_paths() -> Json:
    parameter = {"name": "model_id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {
        "/v1/models": {"get": _get("listModels", "The served names and what the model can do.", "ModelList")},
        "/v1/models/{model_id}": {
            "get": {
                **_get("getModel", "One served name.", "Model", errors=(ModelNotFoundError,)),
                "parameters": [parameter],
            }
        },
    }


def _token_paths() -> Json:
    return {
        path: {
            "post": {
                "operationId": name,
                "summary": summary,
                "requestBody": _body(f"{name.capitalize()}Request"),
                "responses": {"200": _reply(summary, reply), **_errors(BODY_ERRORS)},
            }
        }
        for path, name, summary, reply in (
            ("/tokenize", "tokenize", "The ids of a conversation, as chat encodes it, or of a text.", "Tokenized"),
            ("/detokenize", "detokenize", "The text of ids, special tokens included.", "Detokenized"),
        )
    }


def _operator_paths() -> Json:
    ready = _get("ready", "Whether requests are served now.", "Status")
    ready["responses"]["503"] = _reply("Starting, draining, or the engine is gone.", "Status")
    metrics = _get("metrics", "Metrics in the text format of Prometheus.", "Status")
    metrics["responses"]["200"]["content"] = {TEXT_TYPE: {"schema": {"type": "string"}}}
    document = _get("openapi", "This document.", "Status")
    document["responses"]["200"]["content"] = {JSON_TYPE: {"schema": {"type": "object"}}}
    return {
        "/health": {"get": _get("health", "The process answers.", "Status")},
        "/ready": {"get": ready},
        "/version": {"get": _get("version", "Versions of server, format and engine.", "Version")},
        "/metrics": {"get": metrics},
        "/openapi.json": {"get": document},
    }


def _get(name: str, summary: str, reply: str, errors: tuple[type[GatewayError], ...] = ()) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": _reply(summary, reply), **_errors(errors)},
    }


def _body(name: str) -> Json:
    return {"required": True, "content": {JSON_TYPE: {"schema": ref(name)}}}


def _reply(description: str, schema: str) -> Json:
    return {
        "description": description,
        "headers": {HEADER: {"required": True, "schema": {"type": "string"}}},
        "content": {JSON_TYPE: {"schema": ref(schema)}},
    }


def _errors(kinds: tuple[type[GatewayError], ...]) -> Json:
    """Return the replies of errors by status, and that of a bug; the docstrings of the classes describe them.

    An engine's failure has a status by its cause: 500, 503 or 504.
    """
    told = {"500": UNEXPECTED}
    for kind in kinds:
        status, words = str(kind.status), (kind.__doc__ or "").partition("\n")[0]
        told[status] = f"{told[status]} {words}" if status in told else words
    if EngineFailureError in kinds:
        told["504"] = "The engine took too long."
    return {status: _reply(words, "Error") for status, words in sorted(told.items())}


def _header(name: str, values: list[str], description: str) -> Json:
    # Any mixture of cases is taken.
    spelled = "|".join("".join(f"[{c.upper()}{c}]" if c.isalpha() else c for c in value) for value in values)
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": f"{description} One of: {', '.join(values)}.",
        "schema": {"type": "string", "pattern": f"^({spelled})$"},
    }
