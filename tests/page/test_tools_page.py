"""Functions that the assistant calls, on the talk page."""

from __future__ import annotations

from pathlib import Path

from dialogue.asker import Asker, call
from dialogue.scripted import CountingStt, LoudVad, ToneTts
from page.chrome import FLAGS, chromium
from playwright.async_api import async_playwright, expect
from serving import make_settings, scripted

from app.roles import LlmEnd


async def test_calls_are_shown_folded_with_what_they_gave(tmp_path: Path) -> None:
    llm = Asker(
        lambda messages, options: (
            ["That is all."]
            if messages[-1].role == "tool"
            else [
                "I look.",
                call("whose", '{"thing": "hat"}'),
                call("refuse", "{}", 1, "c2"),
                LlmEnd("tool_calls"),
            ]
        )
    )
    settings = make_settings(tmp_path, tmp_path, tools="tools.sample_tools:whose,tools.sample_tools:refuse")
    engines = {"vad": LoudVad(), "stt": CountingStt(), "llm": llm, "tts": ToneTts(0.05)}
    with scripted(settings, **engines) as server:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
            page = await browser.new_page(locale="en-US")
            problems: list[str] = []
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
            await page.goto(server.url)
            await page.get_by_test_id("text-input").fill("Whose hat is it?")
            await page.keyboard.press("Enter")
            calls = page.get_by_test_id("tool-call")
            await expect(calls).to_have_count(2, timeout=30_000)
            whose, refuse = calls.nth(0), calls.nth(1)
            await expect(whose.locator("summary")).to_contain_text("whose · ")
            await expect(whose.locator("summary")).to_contain_text("ms")
            await expect(refuse.locator("summary")).to_have_text("refuse · failed")
            given, result = whose.locator("pre").nth(0), whose.locator("pre").nth(1)
            await expect(given).not_to_be_visible()
            await whose.locator("summary").click()
            await expect(given).to_have_text('{"thing": "hat"}')
            await expect(result).to_contain_text("hat of ")
            await expect(refuse.locator("pre").nth(1)).to_have_text("refuse failed: there are no rooms left")
            reply = page.get_by_test_id("reply").first
            await expect(reply).to_have_text("I look. That is all.", timeout=30_000)
            await expect(whose.locator("pre").nth(0)).to_be_visible()
            assert problems == []
            await browser.close()
