"""Functions of the server as clients see them: over our own protocol, OpenAI's, on the command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from dialogue.asker import Asker, call
from dialogue.scripted import CountingStt, LoudVad, ToneTts
from openai_api.realtime_client import realtime
from serving import Server, make_settings, scripted
from wire_client import talking

from app.roles import ChatMessage, LlmEnd, LlmOptions, LlmPiece, Tool

TOOLS = "tools.sample_tools:whose,tools.sample_tools:refuse"


def script(messages: Sequence[ChatMessage], options: LlmOptions) -> Sequence[LlmPiece]:
    """Calls what the person names, and says what it gave."""
    if messages[-1].role == "tool":
        return ["It gave: ", messages[-1].content, ".", LlmEnd("stop")]
    said = messages[-1].content
    names = [tool.name for tool in options.tools if tool.name in said]
    calls = [call(name, '{"thing": "hat"}', i, f"c{i}") for i, name in enumerate(names)]
    return [*calls, LlmEnd("tool_calls")] if calls else ["Nothing to call."]


@pytest.fixture(scope="module")
def llm() -> Asker:
    return Asker(script)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, llm: Asker) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tools")
    wish = {"nobody": {"command": "no-such-command-here"}}
    settings = make_settings(folder, folder, tools=TOOLS, mcp_servers=wish)
    with scripted(settings, vad=LoudVad(), stt=CountingStt(), llm=llm, tts=ToneTts(0.05)) as server:
        yield server


async def test_our_own_clients_are_told_of_calls_and_results(house: Server) -> None:
    async with talking(house.url) as wire:
        await wire.send("text", text="whose and refuse")
        done = await wire.until("turn_complete")
        started = [m for m in wire.seen if m["type"] == "tool_call"]
        ended = {m["call_id"]: m for m in wire.seen if m["type"] == "tool_result"}
        assert [(m["name"], m["arguments"], m["turn_id"]) for m in started] == [
            ("whose", '{"thing": "hat"}', done["turn_id"]),
            ("refuse", '{"thing": "hat"}', done["turn_id"]),
        ]
        [whose, refuse] = [ended[m["call_id"]] for m in started]
        # The function knows whose session it is: the owner of a server without keys.
        assert whose["ok"] and whose["text"].endswith(f"in {wire.seen[0]['session_id']}")
        assert not refuse["ok"] and refuse["text"] == "refuse failed: there are no rooms left"
        assert whose["ms"] >= 0 and done["reply"].startswith("It gave: refuse failed")
    async with httpx.AsyncClient(base_url=house.url) as http:
        metrics = (await http.get("/api/v1/metrics")).text
        assert 'colloquy_tool_seconds_count{name="whose",outcome="ok"} 1.0' in metrics
        assert 'colloquy_tool_seconds_count{name="refuse",outcome="failed"} 1.0' in metrics
        health = (await http.get("/health")).json()
        [nobody] = health["mcp_servers"]
        assert (nobody["name"], nobody["tools"]) == ("nobody", 0) and nobody["state"] != "ready"
        assert health["status"] == "healthy", "a conversation does not need it"


async def test_a_realtime_client_calls_its_own_only(house: Server, llm: Asker) -> None:
    light = {"type": "function", "name": "light", "parameters": {"type": "object", "properties": {}}}
    async with realtime(house) as talk:
        await talk.update(tools=[light], output_modalities=["text"])
        await talk.say("whose and light")
        await talk.send("response.create")
        done = await talk.until("response.done")
        [item] = done["response"]["output"]
        assert (item["type"], item["name"]) == ("function_call", "light")
        output = {"type": "function_call_output", "call_id": item["call_id"], "output": "on"}
        await talk.send("conversation.item.create", item=output)
        await talk.send("response.create")
        done = await talk.until("response.done")
        [item] = done["response"]["output"]
        assert item["content"][0]["text"] == "It gave: on."
    results = [m.content for m in llm.asked[-1] if m.role == "tool"]
    assert results[-1] == "on" and results[0].startswith("hat of ")


async def test_chat_completions_know_the_clients_functions_only(house: Server, llm: Asker) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "whose"}]}
    async with httpx.AsyncClient(base_url=house.url) as http:
        answer = await http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "Nothing to call."
    assert llm.options[-1].tools == ()


def test_the_command_line_prints_them(house: Server, tmp_path: Path) -> None:
    program = "import sys; sys.argv[0] = 'colloquy'; from app.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "talk", "--text", "whose", "--url", house.url],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"^ *[\d.]+ s  (.+)$", done.stdout, re.MULTILINE)
    [called] = [line for line in lines if line.startswith("calls")]
    [gave] = [line for line in lines if line.startswith("gave")]
    assert called.split(maxsplit=1)[1] == 'whose {"thing": "hat"}'
    assert " hat of " in gave and gave.endswith(" ms)")


def test_offered_are_what_the_settings_name(house: Server) -> None:
    tools: tuple[Tool, ...] = house.app.state.context.tools.tools
    assert [tool.name for tool in tools] == ["whose", "refuse"]
