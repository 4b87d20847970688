"""Everything that is counted, for Prometheus to scrape.

Each `Metrics` has its own registry, so that two apps in one process do not clash. An attribute
is named like its metric, without the `colloquy_` in front.
"""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
_WAITS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_REAL_TIME = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
_RATES = (1, 2, 5, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200, 400)


class Metrics:
    """The collectors of one app."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4
    """Content type of what `render` gives."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()

        def histogram(
            name: str, text: str, labels: tuple[str, ...] = (), buckets: tuple[float, ...] = _SECONDS
        ) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self.llm_ttft_seconds = histogram(
            "llm_ttft_seconds", "Time to first token: from the request to the model's first text, in seconds"
        )
        self.llm_tokens_per_second = histogram(
            "llm_tokens_per_second",
            "Pace of a reply's text after its first token, in tokens/s",
            buckets=_RATES,
        )
        self.llm_kv_cache_usage_percent = gauge(
            "llm_kv_cache_usage_percent", "Share of the context memory in use, 0-100; NaN where not known"
        )
        self.llm_request_queue_length = gauge(
            "llm_request_queue_length", "Requests that wait for the language model"
        )
        self.asr_rtf = histogram(
            "asr_rtf",
            "Real-time factor of recognition: seconds of work for a second of audio",
            buckets=_REAL_TIME,
        )
        self.asr_cer_percent = gauge(
            "asr_cer_percent", "Character error rate of the last evaluation, in percent; NaN before one"
        )
        self.asr_vad_accuracy_percent = gauge(
            "asr_vad_accuracy_percent",
            "Frames that voice detection judged rightly in the last evaluation, in percent; NaN before one",
        )
        self.tts_synthesis_latency_seconds = histogram(
            "tts_synthesis_latency_seconds",
            "From a piece of text to the first sound of it, in seconds, by voice mode (fast, hq)",
            ("mode",),
        )
        self.tts_model_load_seconds = gauge(
            "tts_model_load_seconds", "How long the voice last took to load, in seconds, by mode", ("mode",)
        )
        self.tts_rtf = histogram(
            "tts_rtf",
            "Real-time factor of the voice: seconds of work for a second of sound, by mode",
            ("mode",),
            _REAL_TIME,
        )
        self.conversation_e2e_latency_seconds = histogram(
            "conversation_e2e_latency_seconds",
            "From the end of speech (or a typed text) to the reply's first sound sent, in seconds",
        )
        self.active_sessions_count = gauge("active_sessions_count", "Sessions that are open")
        self.websocket_connections_active = gauge(
            "websocket_connections_active", "WebSocket connections that are open"
        )

        self.turn_stage_seconds = histogram(
            "colloquy_turn_stage_seconds",
            "From a turn's end of speech (or a typed text) to each stage, in seconds",
            ("stage",),
        )
        self.turns_total = counter(
            "colloquy_turns_total", "Turns that are over, by how they ended", ("outcome",)
        )
        self.interruptions_total = counter(
            "colloquy_interruptions_total", "Replies that were stopped, by reason", ("reason",)
        )
        self.speculations_total = counter(
            "colloquy_speculations_total",
            "Replies begun on a likely end of turn, by what became of them",
            ("outcome",),
        )
        self.stt_streams_total = counter(
            "colloquy_stt_streams_total",
            "Streams to recognisers elsewhere, by provider and how they ended",
            ("provider", "outcome"),
        )
        self.tool_seconds = histogram(
            "colloquy_tool_seconds",
            "How long functions took that the language model called, in seconds, and whether they failed",
            ("name", "outcome"),
        )
        self.reply_pauses_total = counter(
            "colloquy_reply_pauses_total",
            "Replies held because somebody may be speaking, and resumed because it was nothing",
            ("outcome",),
        )
        self.shed_total = counter(
            "colloquy_shed_total",
            "What was given up because urgent work had to wait too long: partial is a pass over speech "
            "that goes on, session is a newcomer who had to wait",
            ("what",),
        )
        self.wearable_packets_total = counter(
            "colloquy_wearable_packets_total",
            "What wearables sent, by codec: ok, bad (dropped: no sound of this codec), keep_alive",
            ("codec", "result"),
        )
        self.wearable_closes_total = counter(
            "colloquy_wearable_closes_total", "Connections of wearables that we closed, by code", ("code",)
        )
        self.errors_total = counter("colloquy_errors_total", "Errors told to clients, by code", ("code",))
        self.model_load_seconds = gauge(
            "colloquy_model_load_seconds", "How long a role's model last took to load, in seconds", ("role",)
        )
        self.workers_wait_seconds = histogram(
            "colloquy_workers_wait_seconds",
            "How long model work waited for a core, in seconds, by urgency",
            ("urgency",),
            _WAITS,
        )
        self.insights_total = counter(
            "colloquy_insights_total",
            "Conversations that are over, by what came of reading them: made, failed, little",
            ("outcome",),
        )
        self.kept_total = counter(
            "colloquy_kept_total",
            "What went through the keeper: turn and recording were stored, refused can never be stored, "
            "waited found the queue full, lost was left at shutdown",
            ("what",),
        )
        self.keep_retries_total = counter(
            "colloquy_keep_retries_total", "Times that storing was tried again after a failure"
        )

        self.swept_total = counter(
            "colloquy_swept_total",
            "Recordings that were swept: raw and synthesized are deleted because of their age, orphans "
            "because nothing named them; opus are made smaller, failed could not be",
            ("what",),
        )
        self.swept_bytes_total = counter(
            "colloquy_swept_bytes_total", "Bytes by which recordings were made smaller"
        )
        self.last_sweep_timestamp_seconds = gauge(
            "colloquy_last_sweep_timestamp_seconds",
            "When the last sweep was done, in seconds of Unix time; 0: not yet",
        )

        # A gauge starts at 0, which would read as a perfect error rate and a useless detector.
        for unknown in (
            self.llm_kv_cache_usage_percent,
            self.asr_cer_percent,
            self.asr_vad_accuracy_percent,
        ):
            unknown.set(math.nan)

    def render(self) -> bytes:
        """All metrics in the Prometheus text format (see `content_type`)."""
        return generate_latest(self.registry)
