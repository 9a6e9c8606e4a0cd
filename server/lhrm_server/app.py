"""create_app: routes, error handlers, middleware and lifespan of one gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.exceptions import HTTPException
from starlette.routing import Route

from lhrm_train.format import ChatTokenizer

from .chat_endpoint import ChatEndpoint
from .engine import Engine
from .errors import GatewayError, http_error_body, unexpected_error, validation_error
from .gateway import Gateway, version
from .ledger import RecordSink
from .models_api import get_model, list_models
from .openapi import openapi_document
from .request_id import HEADER, RequestIdMiddleware
from .settings import Settings
from .tokenize_api import TokenizeEndpoint
from .wire import Json


def create_app(
    settings: Settings, engine: Engine, tokenizer: ChatTokenizer, *, on_record: RecordSink | None = None
) -> FastAPI:
    """Return the gateway's application; its lifespan starts the engine unless that runs already.

    `on_record` is called with every UsageRecord.
    """
    gateway = Gateway(settings, engine, tokenizer, on_record)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await gateway.start()
            yield
        finally:
            await gateway.close()

    app = FastAPI(
        title="lhrm", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.state.gateway = gateway
    app.add_middleware(RequestIdMiddleware)
    _add_error_handlers(app)
    app.router.routes += [
        Route("/v1/chat/completions", ChatEndpoint(gateway), methods=["POST"]),
        Route("/tokenize", TokenizeEndpoint(gateway), methods=["POST"]),
        Route("/detokenize", TokenizeEndpoint(gateway, back=True), methods=["POST"]),
    ]
    _add_model_routes(app, gateway)
    _add_operator_routes(app, gateway)
    return app


def begin_drain(app: FastAPI) -> None:
    """Take no new work from now on: `/ready` and new chat requests get 503."""
    gateway: Gateway = app.state.gateway
    gateway.begin_drain()


def _add_model_routes(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/v1/models")
    async def models() -> Json:
        return list_models(gateway)

    @app.get("/v1/models/{model_id:path}")
    async def model(model_id: str) -> Json:
        return get_model(gateway, model_id)


def _add_operator_routes(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/openapi.json")
    async def openapi() -> Json:
        return openapi_document(gateway)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        is_ready, status = await gateway.readiness()
        return JSONResponse({"status": status}, status_code=200 if is_ready else 503)

    @app.get("/version")
    async def versions() -> Json:
        return {
            "version": version(),
            "format_version": gateway.tokenizer.manifest.format_version,
            "engine": gateway.engine_versions(),
        }

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(gateway.metrics.exposition(), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(GatewayError)
    async def gateway_error(_: Request, exc: GatewayError) -> JSONResponse:
        return JSONResponse(exc.body(), status_code=exc.status, headers=exc.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, exc: RequestValidationError) -> JSONResponse:
        error = validation_error(exc.errors())
        return JSONResponse(error.body(), status_code=error.status)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, exc: HTTPException) -> JSONResponse:
        # Not request.url: building that trusts the Host header, which may be malformed.
        body = http_error_body(exc.status_code, request.method, request.scope["path"])
        return JSONResponse(body, status_code=exc.status_code, headers=exc.headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, _: Exception) -> JSONResponse:
        # This handler runs outside the middleware that tells the request id.
        headers = {HEADER: request.scope["state"]["request_id"]}
        return JSONResponse(unexpected_error(), status_code=500, headers=headers)
