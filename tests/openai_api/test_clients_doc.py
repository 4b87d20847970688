"""Every program of docs/clients.md runs as it stands there, against a server with a key and real models."""

from __future__ import annotations

import asyncio
import base64
import inspect
import io
import json
import os
import re
import ssl
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
import soxr
from client_examples import COMMANDS, PACKAGES, PAGE, PROGRAMS, keyed
from serving import Server
from talk.cutting_proxy import Proxy
from websockets.asyncio.client import connect

import corpus
from app.api.deepgram import listen
from app.api.deepgram import options as deepgram_options
from app.api.openai import embeddings
from app.api.openai import errors as openai_errors
from app.api.openai.realtime import socket as realtime
from app.engines import minilm

TEXT = PAGE.read_text()
KEY = "a-key-for-the-examples"
[SAID] = [r for r in corpus.recordings() if r.id == "austen-930"]
SPOKEN = "Good morning. The train leaves at nine."


class Desk:
    """A folder with a recording and the packages that the programs import."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        sound = soxr.resample(corpus.load(SAID), 16000, 24000)
        with wave.open(str(folder / "question.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(24000)
            file.writeframes((sound.clip(-1, 1) * 32767).astype("<i2").tobytes())
        (folder / "package.json").write_text('{"type": "module"}')
        (folder / "node_modules").symlink_to(PACKAGES)

    def run(self, *command: str, **more: str) -> str:
        """What a program prints; `more` is put into its environment."""
        url = self.server.url
        told = {"COLLOQUY_URL": url, "COLLOQUY_KEY": KEY}
        told |= {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": KEY} | more
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | told,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout

    def program(self, name: str, **more: str) -> str:
        """What a program of the page prints."""
        (self.folder / name).write_text(PROGRAMS[name])
        return self.run(sys.executable if name.endswith(".py") else "node", name, **more)

    def command(self, name: str) -> str:
        """What a command of the page prints."""
        return self.run("bash", "-euc", COMMANDS[name])

    def heard(self, file: bytes) -> str:
        """What is said in a recording."""
        headers = {"Authorization": f"Bearer {KEY}"}
        files = {"file": ("sound", file)}
        answer = httpx.post(f"{self.server.url}/stt", files=files, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["text"])

    def container(self, name: str) -> str:
        """The kind of file that `name` is."""
        with av.open(str(self.folder / name)) as file:
            return file.format.name


@pytest.fixture
def desk(server: Server, tmp_path: Path) -> Iterator[Desk]:
    with keyed(server, KEY):
        yield Desk(server, tmp_path)


def is_said(text: str) -> bool:
    """Whether `text` is what is said in the recording."""
    return corpus.wer(SAID.text, text) < 0.3


def line(output: str, begin: str) -> str:
    """The rest of the line that begins so."""
    found = re.search(rf"^{begin} *(.+)$", output, re.MULTILINE)
    assert found, output
    return found[1]


# --- programs -------------------------------------------------------------------------------------


def models(desk: Desk, output: str) -> None:
    there = {
        s.model
        for s in desk.server.app.state.context.runtime.status.values()
        if s.role in ("llm", "stt", "tts")
    }
    assert there <= set(output.split())


def transcript(desk: Desk, output: str) -> None:
    assert is_said(output)


def said_in(name: str, container: str) -> Callable[[Desk, str], None]:
    def check(desk: Desk, output: str) -> None:
        assert desk.container(name) == container
        assert corpus.wer(SPOKEN, desk.heard((desk.folder / name).read_bytes())) < 0.3

    return check


def answer(desk: Desk, output: str) -> None:
    assert "Paris" in output


def answer_and_usage(desk: Desk, output: str) -> None:
    answer(desk, output)
    assert re.search(r"^\d\d+ tokens$", output, re.MULTILINE)


def tools(desk: Desk, output: str) -> None:
    name, arguments = line(output, "call:").split(" ", 1)
    assert name == "weather" and "Paris" in json.loads(arguments)["city"]
    assert "12" in line(output, "answer:")


def vectors(desk: Desk, output: str) -> None:
    kitten, oil = (float(re.search(rf"{name} (-?[\d.]+)", output)[1]) for name in ("kitten", "oil"))  # type: ignore[index]
    assert kitten > 0.4 > oil


def conversation(desk: Desk, output: str) -> None:
    assert is_said(line(output, "you:"))
    sound = desk.folder / "answer.wav"
    if not sound.exists():
        with wave.open(str(sound), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(24000)
            file.writeframes((desk.folder / "answer.pcm").read_bytes())
    assert corpus.wer(line(output, "answer:"), desk.heard(sound.read_bytes())) < 0.4


def timed(desk: Desk, output: str) -> None:
    first, *words = output.splitlines()
    assert is_said(first) and [w.split()[2] for w in words] == first.split()


def live(desk: Desk, output: str) -> None:
    finals = re.findall(r"^final: *(.*)$", output, re.MULTILINE)
    assert is_said(" ".join(finals)) and "so far:" in output


CHECKS: dict[str, Callable[[Desk, str], None]] = {
    "openai_unchanged.py": models,
    "openai_transcribe.py": transcript,
    "openai_speak.py": said_in("speech.mp3", "mp3"),
    "openai_chat.py": answer_and_usage,
    "openai_tools.py": tools,
    "openai_embed.py": vectors,
    "openai_realtime.py": conversation,
    "openai_transcribe.js": transcript,
    "openai_speak.js": said_in("speech.ogg", "ogg"),
    "openai_chat.js": answer,
    "openai_embed.js": vectors,
    "openai_realtime.js": conversation,
    "deepgram_file.py": timed,
    "deepgram_live.py": live,
    "deepgram_file.js": transcript,
    "deepgram_live.js": live,
}


@pytest.mark.parametrize("name", CHECKS)
def test_programs_do_what_the_page_says(desk: Desk, name: str) -> None:
    CHECKS[name](desk, desk.program(name))


def certificate(folder: Path) -> ssl.SSLContext:
    """A new one for localhost, also in `folder`/tls.pem."""
    new = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout tls.key -out tls.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*new.split(), *names], cwd=folder, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "tls.pem", folder / "tls.key")
    return context


async def test_behind_tls_the_package_opens_the_connection_itself(desk: Desk, tmp_path: Path) -> None:
    proxy, name = Proxy(desk.server.url), "openai_realtime.js"
    async with await asyncio.start_server(proxy.serve, "localhost", 0, ssl=certificate(tmp_path)) as listener:
        url = f"https://localhost:{listener.sockets[0].getsockname()[1]}"
        told = {"COLLOQUY_URL": url, "NODE_EXTRA_CA_CERTS": str(tmp_path / "tls.pem")}
        output = await asyncio.to_thread(desk.program, name, **told)
        proxy.cut()
    assert proxy.accepted == 1
    CHECKS[name](desk, output)


async def test_a_conversation_goes_on_when_the_line_breaks(desk: Desk) -> None:
    proxy, name = Proxy(desk.server.url), "openai_resume.py"
    talks: dict[str, Any] = desk.server.app.state.context.talks
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        program = asyncio.create_task(asyncio.to_thread(desk.program, name, COLLOQUY_URL=url))
        while not any(
            t.conversation.response.audio_ms > 1000 for t in list(talks.values()) if t.conversation.response
        ):
            assert not program.done(), program.result()
            await asyncio.sleep(0.01)
        proxy.cut()
        output = await program
    assert proxy.accepted == 2
    before, rest = re.split(r"\n\(line lost: \d+\)\n", output)
    # The pieces, and then all in one: each piece came once, however the line broke.
    told = (before + rest).replace("\n", "")
    assert before and told[: len(told) // 2] == told[len(told) // 2 :]


# --- commands -------------------------------------------------------------------------------------


def events(output: str) -> list[Any]:
    """The events of a stream."""
    return [json.loads(d) for d in re.findall(r"^data: (\{.*)$", output, re.MULTILINE)]


def asked(desk: Desk, output: str) -> None:
    assert (
        corpus.wer("What is the capital of France?", desk.heard((desk.folder / "question.wav").read_bytes()))
        < 0.3
    )


def listed(desk: Desk, output: str) -> None:
    models(desk, " ".join(m["id"] for m in json.loads(output)["data"]))


def content(output: str) -> str:
    return str(json.loads(output)["choices"][0]["message"]["content"])


def shaped(desk: Desk, output: str) -> None:
    city = json.loads(content(output))
    assert isinstance(city["name"], str) and isinstance(city["population"], int)


def chunks(desk: Desk, output: str) -> None:
    text = "".join(e["choices"][0]["delta"].get("content", "") for e in events(output))
    assert len(events(output)) > 3 and text and output.endswith("data: [DONE]\n\n")


def eight(desk: Desk, output: str) -> None:
    assert [len(item["embedding"]) for item in json.loads(output)["data"]] == [8, 8]


def words(desk: Desk, output: str) -> None:
    told = json.loads(output)
    assert is_said(told["text"]) and is_said(" ".join(w["word"] for w in told["words"]))


def subtitles(desk: Desk, output: str) -> None:
    number, times, *text = output.splitlines()
    assert number == "1" and " --> " in times and is_said(" ".join(text))


def deltas(desk: Desk, output: str) -> None:
    told = events(output)
    assert is_said("".join(e.get("delta", "") for e in told)) and told[-1]["type"] == "transcript.text.done"


def untranslated(desk: Desk, output: str) -> None:
    assert "LANGUAGE=auto" in json.loads(output)["error"]["message"]


def flac(desk: Desk, output: str) -> None:
    assert desk.container("speech.flac") == "flac"
    assert "morning" in desk.heard((desk.folder / "speech.flac").read_bytes()).lower()


def sound_events(desk: Desk, output: str) -> None:
    told = events(output)
    file = b"".join(base64.b64decode(e.get("audio", "")) for e in told)
    with av.open(io.BytesIO(file)) as sound:
        assert sound.format.name == "mp3"
    assert "morning" in desk.heard(file).lower()


def utterance(desk: Desk, output: str) -> None:
    results = json.loads(output)["results"]
    assert is_said(results["channels"][0]["alternatives"][0]["transcript"])
    assert is_said(results["utterances"][0]["transcript"])


COMMAND_CHECKS: dict[str, Callable[[Desk, str], None]] = {
    "A question to ask": asked,
    "The models": listed,
    "Chat": lambda desk, output: answer(desk, content(output)),
    "Chat as JSON of a given shape": shaped,
    "Chat, streamed": chunks,
    "Text to vectors": eight,
    "Speech to text, with the times of words": words,
    "Speech to subtitles": subtitles,
    "Speech to text, streamed": deltas,
    "Speech to English text: for LANGUAGE=auto": untranslated,
    "Text to speech": flac,
    "Text to speech as events": sound_events,
    "Deepgram's transcription of a file": utterance,
}


@pytest.mark.parametrize("name", COMMAND_CHECKS)
def test_commands_do_what_the_page_says(desk: Desk, name: str) -> None:
    COMMAND_CHECKS[name](desk, desk.command(name))


# --- the page -------------------------------------------------------------------------------------


def test_nothing_on_the_page_is_left_out() -> None:
    # The browser's program runs in a browser: tests/page/test_realtime_browser.py.
    assert set(PROGRAMS) == {*CHECKS, "openai_resume.py", "browser_realtime.js"}
    assert set(COMMANDS) == set(COMMAND_CHECKS)


def test_versions_are_those_that_were_run() -> None:
    told = dict(re.findall(r"^\| (Python|JavaScript) `([^`]+)` \| ", TEXT, re.MULTILINE))
    assert told
    packages = json.loads((PACKAGES.parent / "package.json").read_text())["dependencies"]
    for name in ("openai", "deepgram-sdk"):
        assert f"| Python `{name}` | {version(name)} |" in TEXT
    for name in ("openai", "@deepgram/sdk"):
        assert f"| JavaScript `{name}` | {packages[name]} |" in TEXT
        there = json.loads((PACKAGES / name / "package.json").read_text())
        assert there["version"] == packages[name], "run scripts/test, which installs them"


def row(title: str, first: str) -> str:
    """The line of the table `title` that begins so."""
    table = TEXT.split(f"\n| {title} |", 1)[1].split("\n\n", 1)[0]
    return line(table, re.escape(f"| {first} |"))


def test_what_is_left_out_is_told() -> None:
    for name, where in {
        "_IGNORED": "ignored, with a warning in the metadata",
        "_REFUSED": "refused",
        "_REFUSED_ENCODINGS": "refused",
        "ENCODINGS": "served",
    }.items():
        names = getattr(deepgram_options, name)
        assert names and not {n for n in names if f"`{n}`" not in row("`/v1/listen`", where)}, name


def test_limits_and_close_codes_are_told() -> None:
    limits = {
        f"{embeddings.MAX_TEXTS} texts",
        f"{embeddings.MAX_CHARACTERS:,}",
        f"{minilm.MAX_TOKENS} tokens",
    }
    limits |= {f"{embeddings.MAX_ALL_CHARACTERS:,}"}
    assert {n for n in limits if n not in row("`/v1/embeddings`", "limits")} == set()
    assert f"{openai_errors.MAX_JSON_BYTES >> 20} MB of JSON" in row("`/v1/chat/completions`", "limits")
    assert f"{realtime.MAX_EVENT >> 20} MB for an event" in row("`/v1/realtime`", "limits")
    codes = {code for name, code in vars(realtime).items() if name.startswith("CLOSE_")}
    codes |= {int(code) for code in re.findall(r"_Close\((\d+),", inspect.getsource(listen))}
    assert len(codes) >= 5
    assert {code for code in codes if f"\n| {code} |" not in TEXT} == set()


async def test_the_token_opens_a_session_again_where_the_page_says(desk: Desk) -> None:
    """With the key from the page of another site; without it from a program."""
    url, key = f"{desk.server.ws}/v1/realtime", {"Authorization": f"Bearer {KEY}"}
    elsewhere: Any = "https://elsewhere.example"
    offered: Any = ["realtime", f"openai-insecure-api-key.{KEY}"]
    async with connect(url, additional_headers=key) as socket:
        session = json.loads(await socket.recv())["session"]
        socket.transport.abort()
    again = f"{url}?resume={session['resume_token']}&last_event_id=event_0"
    for let_in, given in (
        (True, {"origin": elsewhere, "subprotocols": offered}),
        (True, {}),
        (False, {"origin": elsewhere}),
    ):
        async with connect(again, **given) as socket:
            first = json.loads(await socket.recv())
            assert first["type"] == ("session.created" if let_in else "error"), first
            socket.transport.abort()
    async with connect(again) as socket:  # and it is ended
        await socket.recv()
