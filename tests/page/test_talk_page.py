"""The talk page in a real Chromium whose microphone is a recording."""

from __future__ import annotations

import asyncio
import contextlib
import io
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts
from page.chrome import FLAGS, chromium
from playwright.async_api import Browser, Page, async_playwright, expect
from serving import Server, make_settings, scripted
from wire_client import new_session

import corpus
from app.dialogue.events import ReplyPaused, ReplyResumed

AUSTEN = "had he married a more amiable woman he might have been made still more respectable than he was"
TAP = """
window.played = [];
window.__colloquyTap = (samples, turn) => { window.played.push([turn, Array.from(samples)]); };
"""


def spoken(path: Path, name: str) -> Path:
    """A recording as a microphone gives it: a moment of silence, the words, long silence."""
    [found] = [r for r in corpus.recordings() if r.id == name]
    sound = np.concatenate(
        [np.zeros(16000 * 2, np.float32), corpus.load(found), np.zeros(16000 * 30, np.float32)]
    )
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    microphone = spoken(tmp_path / "microphone.wav", "austen-920")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium(),
            args=[*FLAGS, f"--use-file-for-fake-audio-capture={microphone}%noloop"],
        )
        yield browser
        await browser.close()


@pytest.fixture
async def page(browser: Browser, server: Server) -> AsyncIterator[Page]:
    context = await browser.new_context(locale="en-US", permissions=["microphone"])
    page = await context.new_page()
    page.set_default_timeout(30_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    await page.add_init_script(TAP)
    await page.goto(server.url)
    yield page
    await context.close()
    assert problems == []


async def sounding(page: Page) -> None:
    """Until the page has played something."""
    async with asyncio.timeout(30):
        # Not `wait_for_function`: the page's policy forbids the evaluation that it uses.
        while not await page.evaluate("window.played.length"):
            await asyncio.sleep(0.05)


async def heard(page: Page, server: Server) -> str:
    """What the page played, transcribed again."""
    played: list[Any] = await page.evaluate("window.played.map(([turn, samples]) => samples)")
    sound = np.concatenate([np.asarray(p, np.float32) for p in played])
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(24000)
        out.writeframes((sound.clip(-1, 1) * 32767).astype("<i2").tobytes())
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        answer = await http.post("/stt", files={"file": ("played.wav", file.getvalue())})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["text"])


async def test_what_is_said_appears_and_the_answer_is_heard(page: Page, server: Server) -> None:
    await page.get_by_test_id("mic").click()
    final = page.get_by_test_id("transcript-final").first
    await expect(final).to_be_visible(timeout=60_000)
    assert corpus.wer(AUSTEN, await final.inner_text()) < 0.3
    reply = page.get_by_test_id("reply").first
    await expect(reply).not_to_be_empty()
    headline = page.locator("#waterfall-headline")
    await expect(headline).to_contain_text("ms", timeout=60_000)
    await expect(page.get_by_test_id("state")).to_contain_text("Listening", timeout=30_000)
    text = await reply.inner_text()
    assert corpus.wer(text, await heard(page, server)) < 0.4


async def test_the_firm_and_the_soft_words_are_shown_while_speaking(page: Page) -> None:
    await page.get_by_test_id("mic").click()
    committed = page.get_by_test_id("transcript-committed").first
    # Not the first words: the browser's automatic gain may still be down while they are said.
    await expect(committed).to_contain_text("married a more", timeout=60_000)
    level = page.get_by_test_id("level")
    await expect(level).to_be_visible()
    await expect(level).not_to_have_attribute("aria-valuenow", "0")


async def test_a_typed_question_and_the_stop_button(page: Page) -> None:
    await page.get_by_test_id("text-input").fill("Count from one to thirty in words.")
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("reply").first).not_to_be_empty()
    await sounding(page)
    await page.get_by_test_id("stop").click()
    await page.wait_for_timeout(300)
    before = await page.evaluate("window.played.length")
    await page.wait_for_timeout(700)
    assert await page.evaluate("window.played.length") == before
    await expect(page.get_by_test_id("state")).not_to_contain_text("Speaking")


async def test_a_held_reply_is_silent_and_goes_on_where_it_was(page: Page, server: Server) -> None:
    await page.get_by_test_id("text-input").fill("Count from one to fifteen in words.")
    await page.keyboard.press("Enter")
    await sounding(page)
    [turn] = set(await page.evaluate("window.played.map(([turn]) => turn)"))
    await page.wait_for_timeout(500)
    manager = server.app.state.context.sessions
    # The newest session is the page's. What there is to hear is held there, and goes on being sent.
    session = [entry.session for entry in manager._entries.values()][-1]
    loop = next(iter(session._tasks)).get_loop()
    loop.call_soon_threadsafe(session.outbox.put, ReplyPaused(turn, 500.0))
    state = page.get_by_test_id("state")
    await expect(state).to_contain_text("Listening")
    await page.wait_for_timeout(300)
    before = await page.evaluate("window.played.length")
    await page.wait_for_timeout(1000)
    assert await page.evaluate("window.played.length") == before
    loop.call_soon_threadsafe(session.outbox.put, ReplyResumed(turn))
    await expect(state).to_contain_text("Speaking")
    await expect(state).to_contain_text("Microphone off", timeout=40_000)
    text = await page.get_by_test_id("reply").first.inner_text()
    assert corpus.wer(text, await heard(page, server)) < 0.4


async def test_who_waits_for_a_place_sees_where_and_goes_on(browser: Browser, tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "none", tmp_path, max_sessions=1)
    engines = {"vad": LoudVad(), "stt": CountingStt(), "llm": ScriptedLlm(), "tts": ToneTts()}
    with scripted(settings, **engines) as small:
        session = await new_session(small.url)
        page = await browser.new_page(locale="en-US")
        await page.goto(small.url)
        state = page.get_by_test_id("state")
        await expect(state).to_contain_text("Busy: position 1")
        async with httpx.AsyncClient(base_url=small.url) as http:
            await http.delete(f"/api/v1/sessions/{session['session_id']}")
        await expect(state).to_contain_text("Microphone off", timeout=30_000)
        await page.close()


class Line:
    """A line to the server that can be cut: a TCP proxy on loopback."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self.down = False

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.down:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pipe(reader, far_writer), self._pipe(far_reader, writer))
        self._writers -= {writer, far_writer}

    @staticmethod
    async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    def cut(self) -> None:
        """Break every connection; none can be made until `down` is false again."""
        self.down = True
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        self.cut()
        self._server.close()
        await self._server.wait_closed()


@pytest.fixture
async def line(server: Server) -> AsyncIterator[Line]:
    line = Line(int(server.url.rsplit(":", 1)[1]))
    await line.start()
    yield line
    await line.stop()


async def test_a_line_that_breaks_in_the_middle_of_a_reply_loses_nothing(
    browser: Browser, server: Server, line: Line
) -> None:
    page = await browser.new_page(locale="en-US")
    await page.add_init_script(TAP)
    await page.goto(line.url)
    await page.get_by_test_id("text-input").fill("Count from one to fifteen in words.")
    await page.keyboard.press("Enter")
    await sounding(page)
    line.cut()
    banner = page.get_by_test_id("banner")
    await expect(banner).to_be_visible()
    await expect(banner).to_contain_text("econnect")
    line.down = False
    await expect(banner).to_be_hidden(timeout=30_000)
    await expect(page.get_by_test_id("state")).to_contain_text("Microphone off", timeout=40_000)
    text = await page.get_by_test_id("reply").first.inner_text()
    assert corpus.wer(text, await heard(page, server)) < 0.4
    await page.close()


async def test_it_fits_a_phone_and_speaks_chinese(browser: Browser, server: Server) -> None:
    context = await browser.new_context(
        locale="zh-CN", viewport={"width": 360, "height": 740}, permissions=["microphone"], has_touch=True
    )
    page = await context.new_page()
    await page.goto(server.url)
    await expect(page.get_by_test_id("mic")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert any("\u4e00" <= c <= "\u9fff" for c in await page.inner_text("body"))
    box = await page.get_by_test_id("mic").bounding_box()
    assert box is not None and min(box["width"], box["height"]) >= 44
    await context.close()
