"""Prometheus metrics of one gateway, in a registry of its own; every closed label set exists from the start."""

from __future__ import annotations

from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from lhrm_train.format import Mode

from .accounting import Ending, Failure, UsageRecord
from .control import Wish
from .engine import EngineInfo
from .policy import Source

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
TOKENS = tuple(2**power for power in range(17))
PROBABILITY = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
MODES = tuple(mode.value for mode in Mode)
NONE = "none"
ADMITTED = ("ok", "upstream_error", "cancelled", "client_error")
NOT_ADMITTED = ("client_error", "rejected")
REJECTIONS = ("overloaded", "not_ready")
TOKEN_KINDS = ("prompt", "reasoning", "answer", "overhead", "decide")
ANSWER_MISSING = ("length", "eos", "empty", "stop")
ANOMALIES = ("no_mode_token", "unclosed", "stray_tag", "malformed_tool_call")
UPSTREAM = tuple(failure.value for failure in Failure if failure is not Failure.REFUSED)
METHODS = ("calibration", "definition")


class Metrics:
    """The gateway's counters and histograms; the model label is the configured name, never the request's."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        self._declare_requests()
        self._declare_tokens()
        self._declare_latency()
        self._precreate()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"lhrm_{name}", text, ("model", *labels), registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"lhrm_{name}", text, ("model", *labels), buckets=buckets, registry=self.registry)

    def _declare_requests(self) -> None:
        self.requests = self._counter("requests", "Chat requests by outcome.", "requested", "mode", "outcome", "stream")
        self.decisions = self._counter("mode_decisions", "Modes that ran, by who decided.", "mode", "source")
        self.answer_missing = self._counter("answer_missing", "Completions without any answer text.", "reason")
        self.answers_retried = self._counter("answers_retried", "Completions asked again after ending in reasoning.")
        self.anomalies = self._counter("parse_anomalies", "Completions that broke the mode format.", "kind")
        self.rejected = self._counter("rejected", "Requests that were not admitted.", "reason")
        self.upstream_errors = self._counter("upstream_errors", "Admitted requests that failed.", "reason")
        self.disconnects = self._counter("client_disconnects", "Requests whose client went away.")
        self.in_flight = Gauge("lhrm_in_flight_requests", "Admitted requests now.", ("model",), registry=self.registry)
        self.build = Info("lhrm_build", "Versions of gateway and engine.", registry=self.registry)

    def _declare_tokens(self) -> None:
        self.tokens = self._counter("tokens", "Tokens by kind.", "mode", "kind")
        self.reasoning_tokens = self._histogram(
            "reasoning_tokens", "Reasoning tokens of a completion.", (0, *TOKENS), "mode"
        )
        self.completion_tokens = self._histogram("completion_tokens", "Tokens of a completion.", TOKENS, "mode")
        self.baseline_tokens = self._counter(
            "baseline_tokens_estimated", "Completion tokens that always-think would have made, estimated.", "method"
        )
        self.actual_tokens = self._counter(
            "actual_tokens", "Completion tokens of the requests that have a baseline estimate.", "method"
        )

    def _declare_latency(self) -> None:
        self.think_probability = self._histogram(
            "think_probability", "P(think) among the two opening tags.", PROBABILITY
        )
        self.decision_mass = self._histogram("decision_mass", "Probability of both opening tags together.", PROBABILITY)
        self.duration = self._histogram("request_duration_seconds", "Arrival to end.", SECONDS, "mode")
        self.first_token = self._histogram(
            "time_to_first_token_seconds", "Arrival to the first token of any kind.", SECONDS, "mode"
        )
        self.first_answer_token = self._histogram(
            "time_to_first_answer_token_seconds", "Arrival to the first answer token.", SECONDS, "mode"
        )

    def _precreate(self) -> None:
        """Create every series, so that rates see zeros instead of gaps."""
        model = self._model
        for wish, stream in product(Wish, ("true", "false")):
            for mode, ending in (*product(MODES, ADMITTED), (NONE, "upstream_error"), (NONE, "cancelled")):
                self.requests.labels(model, wish.value, mode, ending, stream)
        for ending in NOT_ADMITTED:
            self.requests.labels(model, NONE, NONE, ending, NONE)
        for mode in MODES:
            for source in Source:
                self.decisions.labels(model, mode, source.value)
            for histogram in (self.reasoning_tokens, self.completion_tokens, self.duration, self.first_token):
                histogram.labels(model, mode)
            self.first_answer_token.labels(model, mode)
        for mode, kind in product((*MODES, NONE), TOKEN_KINDS):
            self.tokens.labels(model, mode, kind)
        for counter, values in (
            (self.answer_missing, ANSWER_MISSING),
            (self.anomalies, ANOMALIES),
            (self.rejected, REJECTIONS),
            (self.upstream_errors, UPSTREAM),
            (self.baseline_tokens, METHODS),
            (self.actual_tokens, METHODS),
        ):
            for value in values:
                counter.labels(model, value)
        for plain in (
            self.disconnects,
            self.answers_retried,
            self.in_flight,
            self.think_probability,
            self.decision_mass,
        ):
            plain.labels(model)

    def engine_started(self, version: str, engine: EngineInfo) -> None:
        """Publish what is running."""
        self.build.info({"version": version, "engine": engine.kind, "engine_version": engine.version})

    def refused(self, outcome: str) -> None:
        """Count a request that ended before it was admitted: `client_error` or `rejected`."""
        self.requests.labels(self._model, NONE, NONE, outcome, NONE).inc()

    def rejected_for(self, reason: str) -> None:
        """Count a sound request that was not admitted."""
        self.refused("rejected")
        self.rejected.labels(self._model, reason).inc()

    def client_gone(self) -> None:
        """Count a request whose client went away."""
        self.disconnects.labels(self._model).inc()

    def admitted(self, change: int) -> None:
        """Follow the number of admitted requests."""
        self.in_flight.labels(self._model).inc(change)

    def write(self, record: UsageRecord) -> None:
        """Count one admitted request."""
        mode = NONE if record.decision is None else record.decision.mode.value
        facts = record.facts
        self.requests.labels(
            self._model, facts.wish.value, mode, outcome(record), "true" if facts.stream else "false"
        ).inc()
        self._write_tokens(record, mode)
        self._write_decision(record)
        if record.decision is not None:
            self._write_latency(record, mode)
        if record.failure is not None and record.failure is not Failure.REFUSED:
            self.upstream_errors.labels(self._model, record.failure.value).inc()
        for choice in record.choices:
            if choice.answer_missing is not None:
                self.answer_missing.labels(self._model, choice.answer_missing).inc()
            self.answers_retried.labels(self._model).inc(choice.answer_retried)
        for kind in record.anomalies:
            self.anomalies.labels(self._model, kind).inc()
        if record.savings is not None:
            self.baseline_tokens.labels(self._model, record.savings.method).inc(record.savings.baseline_tokens)
            self.actual_tokens.labels(self._model, record.savings.method).inc(record.counts.completion)

    def _write_tokens(self, record: UsageRecord, mode: str) -> None:
        for kind in TOKEN_KINDS:
            self.tokens.labels(self._model, mode, kind).inc(getattr(record.counts, kind))
        if outcome(record) == "ok":
            for choice in record.choices:
                self.reasoning_tokens.labels(self._model, mode).observe(choice.reasoning)
                self.completion_tokens.labels(self._model, mode).observe(choice.completion)

    def _write_decision(self, record: UsageRecord) -> None:
        decision = record.decision
        if decision is None:
            return
        self.decisions.labels(self._model, decision.mode.value, decision.source.value).inc()
        if decision.p_think is not None:
            self.think_probability.labels(self._model).observe(decision.p_think)
        if decision.tag_mass is not None:
            self.decision_mass.labels(self._model).observe(decision.tag_mass)

    def _write_latency(self, record: UsageRecord, mode: str) -> None:
        latency = record.latency
        self.duration.labels(self._model, mode).observe(latency.total_ms / 1000)
        if latency.first_token_ms is not None:
            self.first_token.labels(self._model, mode).observe(latency.first_token_ms / 1000)
        if latency.first_answer_token_ms is not None:
            self.first_answer_token.labels(self._model, mode).observe(latency.first_answer_token_ms / 1000)

    def exposition(self) -> bytes:
        """Return the text that Prometheus scrapes."""
        return generate_latest(self.registry)


def outcome(record: UsageRecord) -> str:
    """Name the outcome of an admitted request."""
    if record.ended_by is Ending.ABORT:
        return "cancelled"
    if record.failure is Failure.REFUSED:
        return "client_error"
    return "upstream_error" if record.ended_by is Ending.ERROR else "ok"
