"""What ends a connection that is well otherwise: tokens, a day's minutes, a platform's time limit."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from app_simulator import app, pcm
from dialogue.scripted import silence, speech
from serving import Server, make_settings, scripted

from app.api.wearable import limits
from app.roles import Expired, NotAllowed, QuotaSpent, Revoked
from app.security.access import Access

PAUSE = pcm(silence(1.5))


def words(count: int) -> list[bytes]:
    return pcm(speech(count / 4))


async def token(server: Server, key: str, **wish: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as client:
        return await client.post("/api/v1/tokens", json=wish)


async def asked(server: Server, credential: str) -> httpx.Response:
    """For the conversations."""
    headers = {"Authorization": f"Bearer {credential}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as client:
        return await client.get("/v1/conversations")


def old_token(server: Server, key: str) -> str:
    """One that has run out."""
    access: Access = server.app.state.context.access
    return access.user_token(access.owner({"authorization": f"Bearer {key}"}), -1)[0]


async def test_a_token_stands_for_a_key_until_it_runs_out(small: Server, key: str) -> None:
    made = await token(small, key, seconds=60)
    assert made.status_code == 201
    given = made.json()["token"]
    left = datetime.fromisoformat(made.json()["expires_at"]) - datetime.now(UTC)
    assert 50 < left.total_seconds() <= 60
    async with app(small, given) as phone:
        await phone.status("ready")
        await phone.play([*words(4), *PAUSE])
        await phone.until(lambda: phone.text == "one two three four")
    async with app(small, path="/v4/web/listen") as phone:
        await phone.say(type="auth", token=given)
        await phone.status("ready")
    found = (await asked(small, key)).json()
    assert [c["transcript_segments"][0]["text"] for c in found] == ["one two three four"]


async def test_a_token_makes_no_tokens_and_opens_no_session(small: Server, key: str) -> None:
    given = (await token(small, key)).json()["token"]
    assert (await token(small, given)).status_code == 401
    assert (await token(small, key, seconds=1)).status_code == 422
    access: Access = small.app.state.context.access
    with pytest.raises(NotAllowed):
        access.opened(given)
    session = access.session_token("some-session", "key-x")
    assert (await asked(small, session)).json()["code"] == "NOT_ALLOWED"


@pytest.mark.parametrize("path", ["/v4/listen", "/v4/web/listen"])
async def test_a_token_that_has_run_out_is_told_apart_at_the_door(small: Server, key: str, path: str) -> None:
    given = old_token(small, key)
    async with app(small, given, path=path) as phone:
        if path == "/v4/web/listen":
            await phone.say(type="auth", token=given)
        assert await phone.closed() == 4001
        assert "run out" in (phone.socket.close_reason or "")
        assert phone.events == ([{"type": "auth_response", "success": False}] if "web" in path else [])
    answer = await asked(small, given)
    assert answer.status_code == 401 and answer.json()["code"] == "TOKEN_EXPIRED"


async def test_a_token_that_runs_out_ends_the_stream_and_words_are_kept(
    small: Server, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    access: Access = small.app.state.context.access
    given, _ = access.user_token(access.owner({"authorization": f"Bearer {key}"}), 60)
    over = False
    check = access.check

    def checked(admitted: Any) -> None:
        check(admitted)
        if over:
            raise Expired("the token has run out")

    monkeypatch.setattr(access, "check", checked)
    async with app(small, given) as phone:
        await phone.status("ready")
        await phone.play([*words(5)])
        await phone.until(lambda: phone.text.startswith("one"))
        over = True
        assert await phone.closed() == 4001
        over = False
    async with asyncio.timeout(20):
        while not (found := (await asked(small, key)).json()):
            await asyncio.sleep(0.05)
    assert found[0]["transcript_segments"][0]["text"] == "one two three four five"


async def test_a_key_that_is_removed_takes_its_tokens_with_it(
    tmp_path: Path, engines: dict[str, Any]
) -> None:
    before = make_settings(tmp_path / "none", tmp_path, api_keys=["old", "new"], speaker_provider="none")
    with scripted(before, **engines) as server:
        given = (await token(server, "old")).json()["token"]
    after = make_settings(tmp_path / "none", tmp_path, api_keys=["new"], speaker_provider="none")
    with scripted(after, **engines) as server:
        async with app(server, given) as phone:
            assert await phone.closed() == 4004
        async with app(server, "new") as phone:
            await phone.status("ready")
    assert limits.close_code(Revoked("x"), 1) == 4004 and limits.close_code(QuotaSpent("x"), 1) == 4002


# --- a day's minutes -------------------------------------------------------------------------------


@pytest.fixture
def scarce(tmp_path: Path, engines: dict[str, Any]) -> Iterator[Server]:
    """Half a minute a day, and a platform that ends connections after 8 s."""
    settings = make_settings(
        tmp_path / "none",
        tmp_path,
        api_keys=["a", "b"],
        speaker_provider="none",
        listen_quota_minutes_per_day=0.5,
        connection_time_limit_s=8,
    )
    with scripted(settings, **engines) as server:
        yield server


async def test_who_has_spent_the_day_is_told_so(scarce: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_COUNT_S", 0.1)
    async with app(scarce, "a") as phone:
        await phone.status("ready")
        await phone.play([*words(8), *pcm(silence(20))])
        await phone.until(lambda: phone.text.endswith("eight"))
        await phone.leave()
    async with app(scarce, "a") as phone:
        await phone.status("ready")
        await phone.play([*words(8), *pcm(silence(9))])
        assert await phone.closed() == 4002
        assert re.search(r"0\.5 minutes", phone.socket.close_reason or "")
    async with app(scarce, "a") as phone:
        assert await phone.closed() == 4002
        assert phone.events == []
    async with app(scarce, "b") as phone:
        await phone.status("ready")
    metrics = scarce.app.state.context.metrics.render().decode()
    assert 'colloquy_wearable_closes_total{code="4002"} 2.0' in metrics


# --- a platform's limit ----------------------------------------------------------------------------


async def test_a_connection_ends_well_before_the_platform_ends_it(scarce: Server) -> None:
    """In a pause; and what is being said is heard and shown before."""
    clock = asyncio.get_running_loop().time
    async with app(scarce, "a", scale=1000) as phone:
        began = clock()
        await phone.status("ready")
        await phone.play([*words(3), *PAUSE])
        assert await phone.closed() == 1001
        paused = clock() - began
        await phone.come_back()
        began = clock()
        await phone.until(lambda: phone.statuses.count("ready") == 2)
        await phone.play([*PAUSE, *words(5)])
        assert await phone.closed() == 1001
        assert clock() - began > 0.9 * paused
        assert phone.text == "one two three one two three four five"
        assert len(phone.segments) == 1
    (conversation,) = (await asked(scarce, "a")).json()
    assert [s["text"] for s in conversation["transcript_segments"]] == [phone.text]


async def test_packets_are_counted(small: Server, key: str) -> None:
    async with app(small, key, codec="pcm8") as phone:
        await phone.status("ready")
        await phone.play([b"odd", *words(2), b"\x8a\x00", *PAUSE])
        await phone.until(lambda: phone.text == "one two")
    metrics = small.app.state.context.metrics.render().decode()
    counted = dict(
        re.findall(r'colloquy_wearable_packets_total\{codec="pcm8",result="(\w+)"\} (\d+)', metrics)
    )
    assert int(counted["bad"]) >= 1 and int(counted["keep_alive"]) >= 1
    assert int(counted["ok"]) >= len(words(2)) + len(PAUSE)
