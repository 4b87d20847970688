"""The metrics as a scraper reads them."""

from __future__ import annotations

import math

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from app.observability.metrics import Metrics

# Name, type, labels. The first part is fixed: dashboards of others use it.
EXPECTED = {
    "llm_ttft_seconds": ("histogram", ()),
    "llm_tokens_per_second": ("histogram", ()),
    "llm_kv_cache_usage_percent": ("gauge", ()),
    "llm_request_queue_length": ("gauge", ()),
    "asr_rtf": ("histogram", ()),
    "asr_cer_percent": ("gauge", ()),
    "asr_vad_accuracy_percent": ("gauge", ()),
    "tts_synthesis_latency_seconds": ("histogram", ("mode",)),
    "tts_model_load_seconds": ("gauge", ("mode",)),
    "tts_rtf": ("histogram", ("mode",)),
    "conversation_e2e_latency_seconds": ("histogram", ()),
    "active_sessions_count": ("gauge", ()),
    "websocket_connections_active": ("gauge", ()),
    "colloquy_turn_stage_seconds": ("histogram", ("stage",)),
    "colloquy_turns_total": ("counter", ("outcome",)),
    "colloquy_interruptions_total": ("counter", ("reason",)),
    "colloquy_errors_total": ("counter", ("code",)),
    "colloquy_insights_total": ("counter", ("outcome",)),
    "colloquy_stt_streams_total": ("counter", ("provider", "outcome")),
    "colloquy_speculations_total": ("counter", ("outcome",)),
    "colloquy_tool_seconds": ("histogram", ("name", "outcome")),
    "colloquy_model_load_seconds": ("gauge", ("role",)),
    "colloquy_wearable_packets_total": ("counter", ("codec", "result")),
    "colloquy_wearable_closes_total": ("counter", ("code",)),
    "colloquy_reply_pauses_total": ("counter", ("outcome",)),
    "colloquy_shed_total": ("counter", ("what",)),
    "colloquy_workers_wait_seconds": ("histogram", ("urgency",)),
    "colloquy_kept_total": ("counter", ("what",)),
    "colloquy_keep_retries_total": ("counter", ()),
    "colloquy_swept_total": ("counter", ("what",)),
    "colloquy_swept_bytes_total": ("counter", ()),
    "colloquy_last_sweep_timestamp_seconds": ("gauge", ()),
}


def _scrape(metrics: Metrics) -> dict[str, Metric]:
    """Families by name; a counter is named as its samples are, and `_created` is left out."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        family.name + ("_total" if family.type == "counter" else ""): family
        for family in families
        if not family.name.endswith("_created")
    }


def _touch_all(metrics: Metrics) -> None:
    for name, (kind, labels) in EXPECTED.items():
        collector = getattr(metrics, name.removeprefix("colloquy_"))
        child = collector.labels(**dict.fromkeys(labels, "x")) if labels else collector
        {"histogram": lambda c: c.observe(0.3), "gauge": lambda c: c.set(2), "counter": lambda c: c.inc()}[
            kind
        ](child)


def test_names_types_and_labels() -> None:
    metrics = Metrics()
    _touch_all(metrics)
    families = _scrape(metrics)
    assert set(families) == set(EXPECTED)
    for name, (kind, labels) in EXPECTED.items():
        assert families[name].type == kind, name
        for sample in families[name].samples:
            assert set(sample.labels) - {"le"} == set(labels), name


def test_every_metric_says_what_it_counts_and_in_what_unit() -> None:
    for name, family in _scrape(Metrics()).items():
        assert len(family.documentation) > 10, name
        for suffix, unit in (("_seconds", "seconds"), ("_percent", "percent|0-100"), ("_rtf", "Real-time")):
            if name.endswith(suffix):
                assert any(word in family.documentation for word in unit.split("|")), name


def test_values_come_out_as_they_went_in() -> None:
    metrics = Metrics()
    metrics.tts_synthesis_latency_seconds.labels(mode="fast").observe(0.18)
    metrics.kept_total.labels(what="turn").inc(3)
    families = _scrape(metrics)
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for sample in families["tts_synthesis_latency_seconds"].samples
    }
    assert samples["tts_synthesis_latency_seconds_bucket", "0.1"] == 0
    assert samples["tts_synthesis_latency_seconds_bucket", "0.2"] == 1
    assert samples["tts_synthesis_latency_seconds_sum", None] == 0.18
    assert families["colloquy_kept_total"].samples[0].value == 3


def test_buckets_fit_a_voice() -> None:
    bounds = [
        float(sample.labels["le"])
        for sample in _scrape(Metrics())["conversation_e2e_latency_seconds"].samples
        if sample.name.endswith("_bucket")
    ]
    assert (bounds[0], bounds[-2], bounds[-1]) == (0.05, 10.0, math.inf)
    assert len([bound for bound in bounds if 0.1 <= bound <= 1.5]) >= 7
    assert {1.5, 2.0, 3.0} <= set(bounds), "the limits that are promised are bounds"


def test_what_was_never_measured_is_not_zero() -> None:
    families = _scrape(Metrics())
    for name in ("asr_cer_percent", "asr_vad_accuracy_percent", "llm_kv_cache_usage_percent"):
        assert math.isnan(families[name].samples[0].value)


def test_two_apps_in_one_process_do_not_share() -> None:
    one, two = Metrics(), Metrics()
    one.active_sessions_count.inc()
    assert _scrape(one)["active_sessions_count"].samples[0].value == 1
    assert _scrape(two)["active_sessions_count"].samples[0].value == 0
