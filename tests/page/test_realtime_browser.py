"""`/v1/realtime` from a page of another site, in a real Chromium: the program of docs/clients.md."""

from __future__ import annotations

import base64
import io
import threading
import wave
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import soxr
from client_examples import PROGRAMS, keyed
from page.chrome import FLAGS, chromium
from playwright.async_api import Page, async_playwright
from serving import Server

import corpus

KEY = "a-key-for-the-browser"
[SAID] = [r for r in corpus.recordings() if r.id == "austen-930"]
CALL = """async ([url, key, sound]) => {
  const bytes = Uint8Array.from(atob(sound), (c) => c.charCodeAt(0));
  return await converse(url, key, bytes.buffer).catch((refused) => ({ refused }));
}"""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """A site of somebody else, with the program on its page."""
    html = (
        f"<!doctype html><title>elsewhere</title><script>{PROGRAMS['browser_realtime.js']}</script>".encode()
    )

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/" else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(html if self.path == "/" else b"")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as site:
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


@pytest.fixture
def closed(server: Server) -> Iterator[Server]:
    """The server, which wants a key for as long as the test runs."""
    with keyed(server, KEY):
        yield server


async def converse(page: Page, server: Server, key: str) -> dict[str, Any]:
    """What the program on the page makes of a recording."""
    sound = (soxr.resample(corpus.load(SAID), 16000, 24000).clip(-1, 1) * 32767).astype("<i2").tobytes()
    told: dict[str, Any] = await page.evaluate(CALL, [server.url, key, base64.b64encode(sound).decode()])
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
