"""Log lines: their form, the ids they carry, and what must never be in them."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.observability.logs import bind, configure, current_trace_id, new_trace_id, redact

logger = logging.getLogger("app.test_logs")
SECRET = "s3cr3tV4lue"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    names = ("", "app", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
    before = [
        (named, named.level, named.propagate, named.handlers[:]) for named in map(logging.getLogger, names)
    ]
    yield
    for named, level, propagate, handlers in before:
        named.setLevel(level)
        named.propagate = propagate
        named.handlers[:] = handlers


def _json_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_json_line_has_time_level_logger_message_ids_and_extras(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", json=True)
    with bind(trace_id="t" * 32, session_id="s1"):
        logger.info(
            "loaded %s in\n%d ms", "joe", 3, extra={"role": "tts", "n": 2, "at": [1.5, None], "ok": True}
        )
    (line,) = _json_lines(capsys)
    taken = datetime.fromisoformat(line.pop("ts"))
    assert taken.tzinfo == UTC
    assert line == {
        "level": "INFO",
        "logger": "app.test_logs",
        "message": "loaded joe in\n3 ms",
        "trace_id": "t" * 32,
        "session_id": "s1",
        "role": "tts",
        "n": 2,
        "at": [1.5, None],
        "ok": True,
    }


def test_an_extra_field_cannot_pose_as_the_records_own(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", json=True)
    logger.info("real", extra={"level": "DEBUG", "ts": "never", "odd": object(), "bad": "\ud800"})
    (line,) = _json_lines(capsys)
    assert line["level"] == "INFO"
    assert line["ts"] != "never"
    assert line["odd"].startswith("<object")


def test_an_exception_is_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", json=True)
    try:
        raise RuntimeError(f"GET /x?token={SECRET}")
    except RuntimeError:
        logger.exception("failed")
    (line,) = _json_lines(capsys)
    assert line["exception"].startswith("Traceback")
    assert "RuntimeError: GET /x?token=[redacted]" in line["exception"]


def test_the_terminal_form_is_one_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", json=False)
    with bind(trace_id="0123456789abcdef" * 2):
        logger.warning("slow", extra={"ms": 12})
    out = capsys.readouterr().err
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} WARNING app\.test_logs: slow trace_id=01234567 ms=12\n", out)


def test_text_from_outside_cannot_forge_a_line_or_drive_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("INFO", json=False)
    logger.info("file %s", "a\n12:00:00.000 ERROR app: forged\r\x1b[2J\u2028", extra={"name2": "b\nc"})
    out = capsys.readouterr().err
    assert len(out.splitlines()) == 1
    assert "\x1b" not in out
    assert r"a\n12:00:00.000 ERROR" in out


def test_ids_hold_within_their_block_only() -> None:
    assert current_trace_id() is None
    with bind(trace_id="a", session_id="s"):
        with bind(trace_id="b"):
            assert current_trace_id() == "b"
        assert current_trace_id() == "a"
        with bind(session_id="other"):
            assert current_trace_id() == "a"
    assert current_trace_id() is None


async def test_each_task_keeps_its_own_ids_and_threads_get_them(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", json=True)

    async def work(name: str) -> None:
        with bind(trace_id=name):
            await asyncio.sleep(0)
            await asyncio.to_thread(logger.info, name)

    await asyncio.gather(*(work(name) for name in "abc"))
    lines = _json_lines(capsys)
    assert sorted(line["message"] for line in lines) == ["a", "b", "c"]
    assert all(line["trace_id"] == line["message"] for line in lines)


def test_trace_ids_are_32_hex_digits_and_differ() -> None:
    ids = {new_trace_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


def test_configuring_again_does_not_double_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", json=False)
    configure("INFO", json=True)
    logger.info("once")
    assert len(_json_lines(capsys)) == 1


def test_libraries_stay_quiet_when_we_debug(capsys: pytest.CaptureFixture[str]) -> None:
    """aiosqlite prints statements with what was said, websockets whole frames."""
    configure("DEBUG", json=True)
    for name in ("aiosqlite", "websockets.server", "openai._base_client", "httpx", "uvicorn.error"):
        logging.getLogger(name).debug("payload")
    logger.debug("ours")
    logging.getLogger("httpx").warning("theirs")
    assert [line["message"] for line in _json_lines(capsys)] == ["ours", "theirs"]


def test_uvicorns_lines_take_our_form_without_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    import uvicorn.config

    logging.config.dictConfig(uvicorn.config.LOGGING_CONFIG)
    configure("INFO", json=True)
    # As uvicorn itself calls them, for a request and for a WebSocket.
    logging.getLogger("uvicorn.access").info(
        '%s - "%s %s HTTP/%s" %d', "127.0.0.1:5", "GET", f"/a?x=1&token={SECRET}&y=2", "1.1", 200
    )
    logging.getLogger("uvicorn.error").info('%s - "WebSocket %s" [accepted]', "::1", f"/ws/1?token={SECRET}")
    logging.getLogger("uvicorn.error").info("started", extra={"color_message": "\x1b[1mstarted"})
    first, second, third = _json_lines(capsys)
    assert first["message"] == '127.0.0.1:5 - "GET /a?x=1&token=[redacted]&y=2 HTTP/1.1" 200'
    assert second["message"] == '::1 - "WebSocket /ws/1?token=[redacted]" [accepted]'
    assert first["logger"] == "uvicorn.access"
    assert set(third) == {"ts", "level", "logger", "message"}


LEAKS = [
    "Authorization: Bearer {}",
    "authorization: basic {}==",
    "AUTHORIZATION : {}",
    '> Authorization: Digest username="x", response="{}"',
    "{{'authorization': 'Bearer {}', 'accept': '*/*'}}",
    '{{"Authorization": "Token {}"}}',
    "[(b'authorization', b'Bearer {}'), (b'host', b'x')]",
    "Headers({{'x-api-key': '{}'}})",
    "Proxy-Authorization: Basic {}",
    "Cookie: a=1; session={}; b=2",
    "Set-Cookie: id={}; HttpOnly",
    "GET /ws?token={} HTTP/1.1",
    "GET /ws?a=1&access_token={}&b=2",
    "wss://h/ws/1?TOKEN={}",
    "redirect=%2Fws%3Ftoken%3D{}",
    "http://h/?api_key={}#x",
    "https://s3/o?X-Amz-Signature={}",
    "client_secret={}",
    "password={} rejected",
    '{{"session_id": "1", "token": "{}"}}',
    "{{'refresh_token': '{}'}}",
    "used bearer {} twice",
    "postgresql://colloquy:{}@db/x",
    "Incorrect API key provided: sk-{}0123456789abcdef",
    "jwt eyJhbGciOi.eyJzdWIiOi{}.c2ln",
]


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("leak", LEAKS)
def test_secrets_never_get_through(capsys: pytest.CaptureFixture[str], leak: str, as_json: bool) -> None:
    configure("INFO", json=as_json)
    text = leak.format(SECRET)
    logger.info(text)
    logger.info("%s", text)
    logger.info("extra", extra={"detail": text, "nested": {"list": [text]}})
    try:
        raise ValueError(text)
    except ValueError:
        logger.exception("exception", stack_info=True)
    out = capsys.readouterr().err
    assert SECRET not in out
    assert out.count("[redacted]") >= 4


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "session_token",
        "Authorization",
        "api_key",
        "api-key",
        "password",
        "set_cookie",
        "clientSecret",
    ],
)
def test_fields_named_like_secrets_are_cut_whole(capsys: pytest.CaptureFixture[str], name: str) -> None:
    configure("INFO", json=True)
    logger.info("a", extra={name: SECRET, "headers": {name: SECRET, "n_tokens": 1}})
    (line,) = _json_lines(capsys)
    assert line[name] == "[redacted]"
    assert line["headers"] == {name: "[redacted]", "n_tokens": 1}


@pytest.mark.parametrize(
    "harmless",
    [
        "first token: 120 ms, 31 tokens/s",
        "max_tokens=256 tokens=12",
        "the bearer",
        "http://127.0.0.1:8000/ws/1?lang=en",
        "no authorization needed",
        "key raw_inputs/2026/11/21/a_1.wav",
        "tokenizer=bpe secretary=no",
    ],
)
def test_what_is_no_secret_stays(harmless: str) -> None:
    assert redact(harmless) == harmless


@given(st.text(max_size=60), st.text(alphabet=st.characters(categories=["L", "N"]), min_size=12, max_size=40))
def test_a_token_in_a_query_is_cut_whatever_is_around_it(around: str, token: str) -> None:
    assert token not in redact(f"{around}?token={token}").replace(around, "")
