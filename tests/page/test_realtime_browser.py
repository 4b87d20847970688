"""Pages of another site, in a real Chromium: realtime with the program of docs/clients.md, and REST with
OpenAI's and Deepgram's own packages."""

from __future__ import annotations

import base64
import io
import threading
import wave
from collections.abc import AsyncIterator, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import soxr
from client_examples import PACKAGES, PROGRAMS, keyed
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts, speech
from page.chrome import FLAGS, chromium
from playwright.async_api import Page, async_playwright
from serving import Server, make_settings, scripted

import corpus
from app.audio.wav import wav_bytes

KEY = "a-key-for-the-browser"
[SAID] = [r for r in corpus.recordings() if r.id == "austen-930"]
HTML = f"""<!doctype html>
<title>elsewhere</title>
<link rel="icon" href="data:,">
<script>{PROGRAMS["browser_realtime.js"]}</script>
<script src="/@deepgram/sdk/dist/browser/index.global.js"></script>
<script type="importmap">{{"imports": {{"openai": "/openai/index.mjs"}}}}</script>
"""
CONVERSE = """async ([url, key, sound]) => {
  const bytes = Uint8Array.from(atob(sound), (c) => c.charCodeAt(0));
  return await converse(url, key, bytes.buffer).catch((refused) => ({ refused }));
}"""
CHAT = """async ([baseURL, apiKey]) => {
  const { OpenAI } = await import("openai");
  const client = new OpenAI({ baseURL, apiKey, dangerouslyAllowBrowser: true, maxRetries: 0 });
  const messages = [{ role: "user", content: "hello" }];
  const { choices } = await client.chat.completions.create({ model: "gpt-4o-mini", messages });
  return choices[0].message.content;
}"""
LISTEN = """async ([baseUrl, apiKey, sound]) => {
  const bytes = Uint8Array.from(atob(sound), (c) => c.charCodeAt(0));
  const client = new Deepgram.DeepgramClient({ baseUrl, apiKey });
  const answer = await client.listen.v1.media.transcribeFile(bytes, { model: "nova-3" });
  return answer.results.channels[0].alternatives[0].transcript;
}"""


class Site(SimpleHTTPRequestHandler):
    """A page, and the packages."""

    def do_GET(self) -> None:
        if self.path != "/":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(HTML.encode())

    def guess_type(self, path: Any) -> str:
        return "text/javascript" if str(path).endswith((".js", ".mjs")) else "application/octet-stream"

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """A site of somebody else."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=str(PACKAGES))) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()
        thread.join()


@pytest.fixture
async def page(elsewhere: str) -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = await browser.new_page()
        await page.goto(elsewhere)
        yield page
        await browser.close()


# --- realtime -------------------------------------------------------------------------------------


@pytest.fixture
def closed(server: Server) -> Iterator[Server]:
    """The server, which wants a key for as long as the test runs."""
    with keyed(server, KEY):
        yield server


async def converse(page: Page, server: Server, key: str) -> dict[str, Any]:
    """What the program on the page makes of a recording."""
    sound = (soxr.resample(corpus.load(SAID), 16000, 24000).clip(-1, 1) * 32767).astype("<i2").tobytes()
    told: dict[str, Any] = await page.evaluate(CONVERSE, [server.url, key, base64.b64encode(sound).decode()])
    return told


async def test_a_page_of_another_site_talks_with_a_key(page: Page, closed: Server) -> None:
    told = await converse(page, closed, KEY)
    assert corpus.wer(SAID.text, told["you"]) < 0.3
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(24000)
        out.writeframes(b"".join(base64.b64decode(piece) for piece in told["sound"]))
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=closed.url, headers=headers, timeout=60) as http:
        answer = await http.post("/stt", files={"file": ("answer.wav", file.getvalue())})
    assert corpus.wer(told["answer"], answer.json()["text"]) < 0.4


async def test_a_wrong_key_is_told_and_sent_away(page: Page, closed: Server) -> None:
    refused = (await converse(page, closed, "wrong"))["refused"]
    assert (refused["code"], refused["close"]) == ("invalid_api_key", 1008)


async def test_without_keys_pages_of_other_sites_are_sent_away(page: Page, server: Server) -> None:
    refused = (await converse(page, server, KEY))["refused"]
    assert refused["close"] == 1008 and "other sites" in refused["message"]


# --- REST -----------------------------------------------------------------------------------------


async def test_the_packages_work_on_pages_of_allowed_sites(
    page: Page, elsewhere: str, tmp_path: Path
) -> None:
    """They send headers of their own, which browsers ask about first."""
    settings = make_settings(tmp_path / "none", tmp_path, api_keys=[KEY], allowed_origins=[elsewhere])
    engines = {"vad": LoudVad(), "stt": CountingStt(), "llm": ScriptedLlm(text="Hello."), "tts": ToneTts()}
    sound = base64.b64encode(wav_bytes(speech(1.0), 16000)).decode()
    with scripted(settings, **engines) as server:
        assert await page.evaluate(CHAT, [f"{server.url}/v1", KEY]) == "Hello."
        assert await page.evaluate(LISTEN, [server.url, KEY, sound]) == "one two three four"
