"""The model in process: whose cache is used, what stops when nobody wants it any more."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.engines.llama import Llama, _text_of
from app.roles import (
    BadInput,
    ChatMessage,
    ContextTooLong,
    EngineFailed,
    Job,
    LlmEnd,
    LlmOptions,
    LlmPiece,
    Tool,
    ToolCall,
    ToolCallPiece,
)

SYSTEM = ChatMessage("system", "You are a friendly voice assistant. Answer in one short sentence.")
WEATHER = Tool(
    "get_weather",
    "Get the current weather in a city",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
)
CLOCK = Tool("get_time", "Get the current time, without a place")
PLACES = (
    "Paris Rome Oslo Lima Cairo Delhi Quito Dakar Turin Basel Seoul Hanoi Lagos Minsk Osaka Perth".split()
)


class Watch:
    """Stands before the library's server and notes every request and every chunk."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.requests: list[tuple[dict[str, Any], list[Any]]] = []
        self.running = 0
        self._lock = threading.Lock()

    @property
    def listening_address(self) -> str:
        return str(self._server.listening_address)

    def handle_chat_completions(self, body: dict[str, Any], heard: Callable[[Any], bool]) -> None:
        self._watch(self._server.handle_chat_completions, body, heard)

    def handle_completions(self, body: dict[str, Any], heard: Callable[[Any], bool]) -> None:
        self._watch(self._server.handle_completions, body, heard)

    def _watch(
        self,
        handle: Callable[[dict[str, Any], Callable[[Any], bool]], None],
        body: dict[str, Any],
        heard: Callable[[Any], bool],
    ) -> None:
        chunks: list[Any] = []
        with self._lock:
            self.requests.append((body, chunks))
            self.running += 1

        def on_chunk(chunk: Any) -> bool:
            chunks.append(chunk)
            return heard(chunk)

        try:
            handle(body, on_chunk)
        finally:
            with self._lock:
                self.running -= 1

    @property
    def last(self) -> list[Any]:
        return self.requests[-1][1]

    def counts(self, request: int = -1) -> tuple[int, int]:
        """Tokens of a request's prompt: those found in the cache, those read."""
        timings = next(c["timings"] for c in self.requests[request][1] if "timings" in c)
        return timings["cache_n"], timings["prompt_n"]

    def read(self) -> int:
        """Tokens of the last request's prompt that are read or were in the cache so far."""
        return max(
            (c["prompt_progress"]["processed"] for c in self.last if "prompt_progress" in c), default=0
        )


@pytest.fixture
async def make(model_dir: Callable[[str], Path]) -> AsyncIterator[Callable[[int], tuple[Llama, Watch]]]:
    path = next(model_dir("qwen2.5-coder-0.5b-instruct-q4_k_m").glob("*.gguf"))
    made: list[Llama] = []

    def make(slots: int) -> tuple[Llama, Watch]:
        llama = Llama(path, threads=1, slots=slots)
        made.append(llama)
        llama._server = watch = Watch(llama._server)
        return llama, watch

    yield make
    for llama in made:
        await llama.close()


def asking(*texts: str) -> list[ChatMessage]:
    """A conversation; the person begins."""
    said = [ChatMessage("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)]
    return [SYSTEM, *said]


def long(topic: str, sentences: int = 14) -> str:
    """About 17 tokens a sentence."""
    return " ".join(
        f"Then {topic} went on to {PLACES[i % len(PLACES)]} and wrote letter number {i} to a friend."
        for i in range(sentences)
    )


async def answer(llama: Llama, messages: Sequence[ChatMessage], owner: str = "", most: int = 6) -> str:
    return text_of([piece async for piece in llama.reply(messages, LlmOptions(most, 0.0), Job(owner))])


def text_of(pieces: Sequence[LlmPiece]) -> str:
    return "".join(piece for piece in pieces if isinstance(piece, str))


async def begun(watch: Watch, requests: int, tokens: int) -> None:
    """Wait until that many requests were made and so many tokens of the last one were read."""
    async with asyncio.timeout(60):
        while len(watch.requests) < requests or watch.read() < tokens:
            await asyncio.sleep(0.002)


async def test_it_answers(make: Callable[[int], tuple[Llama, Watch]]) -> None:
    llama, _ = make(1)
    assert "Paris" in await answer(llama, asking("What is the capital of France?"), most=20)


async def test_an_owner_finds_its_cache_though_others_talk_in_between(
    make: Callable[[int], tuple[Llama, Watch]],
) -> None:
    llama, watch = make(3)
    # They begin alike, so that the core left alone would take one's cache for the other.
    first = {o: long("my uncle", 3) + f" This is {o}." for o in ("ann", "bob", "cid")}
    said = {o: await answer(llama, asking(text), o) for o, text in first.items()}
    for owner in ("bob", "ann", "cid", "bob"):
        cached, read = (
            await answer(llama, asking(first[owner], said[owner], "And why?"), owner),
            watch.counts(),
        )[1]
        assert cached > 60 and read < 20, (owner, cached, read)
    assert {r[0]["id_slot"] for r in watch.requests} == {0, 1, 2}


async def test_the_owner_who_was_away_longest_loses_its_slot(
    make: Callable[[int], tuple[Llama, Watch]],
) -> None:
    llama, watch = make(2)
    for owner in ("ann", "bob", "ann", "cid"):
        await answer(llama, asking(long(owner, 3)), owner, 1)
    slots = [r[0]["id_slot"] for r in watch.requests]
    assert slots[0] == slots[2] != slots[1] == slots[3]


async def test_more_owners_than_slots_are_all_answered(make: Callable[[int], tuple[Llama, Watch]]) -> None:
    llama, watch = make(2)
    most = 0

    async def ask(place: str) -> str:
        nonlocal most
        text = ""
        async for piece in llama.reply(asking(f"Say the word {place}."), LlmOptions(12, 0.0), Job(place)):
            text += piece if isinstance(piece, str) else ""
            most = max(most, watch.running)
        return text

    for _ in range(2):
        places = [*PLACES[:5], PLACES[0]]
        replies = await asyncio.gather(*(ask(p) for p in places))
        assert all(p in r for p, r in zip(places, replies, strict=True)), replies
    assert most == 2


async def test_closing_a_reply_stops_it_while_the_prompt_is_read(
    make: Callable[[int], tuple[Llama, Watch]],
) -> None:
    llama, watch = make(1)
    reply = llama.reply(asking(long("she", 60)), LlmOptions(40), Job("ann"))
    waiting = asyncio.ensure_future(anext(reply))
    await begun(watch, 1, 60)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await reply.aclose()
    read = watch.read()
    assert "Paris" in await answer(llama, asking("What is the capital of France?"), "bob", 12)
    stopped = max(c["prompt_progress"]["processed"] for c in watch.requests[0][1])
    assert stopped - read <= 64, "no more than the batch at hand and the one begun meanwhile"
    assert stopped < watch.requests[0][1][0]["prompt_progress"]["total"] - 400
    assert not any(_text_of(c) for c in watch.requests[0][1])


async def test_cancelled_reading_ahead_stops_and_counts(make: Callable[[int], tuple[Llama, Watch]]) -> None:
    llama, watch = make(1)
    messages = asking(long("he", 20))
    task = asyncio.create_task(llama.prepare(messages, Job("ann")))
    await begun(watch, 1, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await answer(llama, messages, "ann", 1)
    cached, read = watch.counts()
    stopped = max(c["prompt_progress"]["processed"] for c in watch.requests[0][1])
    assert stopped <= cached <= stopped + 64
    assert read > 150


async def test_who_is_cancelled_while_waiting_leaves_no_trace(
    make: Callable[[int], tuple[Llama, Watch]],
) -> None:
    llama, watch = make(1)
    first = llama.reply(asking("Count to fifty."), LlmOptions(60), Job("ann"))
    await anext(first)
    behind = [asyncio.create_task(answer(llama, asking("Hello."), o)) for o in ("bob", "ann", "cid")]
    await asyncio.sleep(0)
    for task in behind[:2]:
        task.cancel()
    await first.aclose()
    assert await behind[2]
    assert len(watch.requests) == 2
    assert await answer(llama, asking("Hello."), "bob")


async def test_what_was_read_ahead_is_not_read_again(make: Callable[[int], tuple[Llama, Watch]]) -> None:
    llama, watch = make(2)
    text = long("the captain", 6)
    await llama.prepare([SYSTEM], Job("ann"))
    await llama.prepare(asking(text[:150]), Job("ann"))
    await llama.prepare(asking(text), Job("ann"))
    assert watch.counts()[0] > 30
    await answer(llama, asking(text), "ann", 1)
    assert watch.counts()[1] <= 5, "only what leads over to the answer"
    await answer(llama, asking(text + " Where was he last?"), "ann", 1)
    assert watch.counts()[1] <= 14


async def test_what_stays_of_a_conversation_is_not_read_again(
    make: Callable[[int], tuple[Llama, Watch]],
) -> None:
    llama, watch = make(2)
    old = [long("an old friend", 4), "That is a long story."]
    kept = [
        "My name is Wolfgang, I live in Vienna, and I play the cello." + long("my aunt", 4),
        "Nice, Wolfgang.",
    ]
    await answer(llama, asking(*old, *kept, "What do I play?"), "ann", 1)
    said = await answer(llama, asking(*kept, "What is my name?"), "ann", 12)
    cached, read = watch.counts()
    assert cached > 80 and read < 16
    assert "Wolfgang" in said


async def test_nothing_of_another_owner_is_moved(make: Callable[[int], tuple[Llama, Watch]]) -> None:
    llama, watch = make(1)
    kept = [long("my aunt", 6), "I see."]
    await answer(llama, asking("A secret: " + long("the spy", 2), "Oh.", *kept, "Why?"), "ann", 1)
    await answer(llama, asking(*kept, "Why?"), "bob", 1)
    cached, read = watch.counts()
    assert cached < 30 and read > 80, "the system prompt at most"


async def test_reading_ahead_gives_way_to_those_who_are_answered(
    make: Callable[[int], tuple[Llama, Watch]],
) -> None:
    llama, watch = make(1)
    reply = llama.reply(asking("Count to fifty."), LlmOptions(60), Job("ann"))
    await anext(reply)
    await llama.prepare(asking("Hello there."), Job("bob"))
    assert len(watch.requests) == 1
    await reply.aclose()


async def test_closing_it_ends_what_runs_and_what_waits(make: Callable[[int], tuple[Llama, Watch]]) -> None:
    llama, watch = make(1)
    running = llama.reply(asking("Tell me a long story."), LlmOptions(400), Job("ann"))
    await anext(running)
    waiting = asyncio.create_task(answer(llama, asking("Hello."), "bob"))
    await asyncio.sleep(0)
    await asyncio.gather(llama.close(), llama.close())
    assert watch.running == 0
    with pytest.raises(EngineFailed, match="closed"):
        await waiting
    with pytest.raises(EngineFailed, match="closed"):
        async for _ in running:
            pass
    assert sum(bool(_text_of(c)) for c in watch.last) < 300
    with pytest.raises(EngineFailed, match="closed"):
        await answer(llama, asking("Hello."))


async def test_a_prompt_that_does_not_fit_is_refused(make: Callable[[int], tuple[Llama, Watch]]) -> None:
    llama, _ = make(1)
    with pytest.raises(ContextTooLong, match="LLM_CONTEXT_TOKENS"):
        await answer(llama, asking(long("nobody", 200)), "ann")
    assert await answer(llama, asking("Hello."), "ann")


def test_no_model_there(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="no model file"):
        Llama(tmp_path / "none.gguf", threads=1)


@pytest.mark.parametrize(
    ("whole", "parts"),
    [
        ("What time is it?", ["What", "What time", "What time is?"]),
        ("Turn the lights off in the kitchen.", ["Turn the.", "Turn the lights off in the.", "Turn."]),
        ("I would like a table for two people.", ["I would like to.", "I would like a table for,"]),
        ("请问最近的地铁站在哪里？", ["请问最近的。", "请问最近的地铁站在"]),
    ],
)
async def test_it_can_tell_whether_words_are_all(
    make: Callable[[int], tuple[Llama, Watch]], whole: str, parts: list[str]
) -> None:
    llama, _ = make(1)
    likely = await llama.completeness(asking(whole), Job("ann"))
    assert likely is not None and 0.04 < likely <= 1
    for part in parts:
        less = await llama.completeness(asking(part), Job("ann"))
        assert less is not None and less < likely / 5, part


async def test_punctuation_has_no_say_in_whether_words_are_all(
    make: Callable[[int], tuple[Llama, Watch]],
) -> None:
    llama, _ = make(1)
    found = [
        await llama.completeness(asking(f"I need milk and{end}"), Job("ann")) for end in ("", ".", "?", " …")
    ]
    assert found[0] is not None and found == pytest.approx([found[0]] * 4, rel=0.2, abs=1e-4)
    assert await llama.completeness(asking("..."), Job("ann")) is None


async def test_asking_whether_words_are_all_reads_only_what_is_new(
    make: Callable[[int], tuple[Llama, Watch]],
) -> None:
    llama, watch = make(2)
    before = [long("my uncle", 3), "I see.", "What did he write in the last"]
    await llama.prepare(asking(*before), Job("ann"))
    said = [*before[:-1], f"{before[-1]} letter?"]
    assert await llama.completeness(asking(*said), Job("ann")) is not None
    assert {body["id_slot"] for body, _ in watch.requests} == {watch.requests[0][0]["id_slot"]}
    cached, read = watch.counts()
    assert cached > 60 and read <= 4, (cached, read)
    # Nor does it cost the reply anything.
    await answer(llama, asking(*said), "ann", 1)
    cached, read = watch.counts()
    assert cached > 60 and read < 12, (cached, read)


async def test_whether_words_are_all_is_not_known_while_everybody_is_answered(
    make: Callable[[int], tuple[Llama, Watch]],
) -> None:
    llama, watch = make(1)
    reply = asyncio.create_task(answer(llama, asking("Tell me a story."), "ann", 40))
    await begun(watch, 1, 1)
    assert await llama.completeness(asking("What time is it?"), Job("bob")) is None
    await reply


# --- how a reply ends, and what it must look like ---------------------------------------------------


async def pieces_of(
    llama: Llama, messages: Sequence[ChatMessage], owner: str = "ann", **options: Any
) -> list[LlmPiece]:
    given = LlmOptions(**({"max_tokens": 60, "temperature": 0.0} | options))
    return [piece async for piece in llama.reply(messages, given, Job(owner))]


def call_of(pieces: Sequence[LlmPiece]) -> tuple[str, dict[str, Any]]:
    """The one call that `pieces` are, and nothing else."""
    *parts, end = pieces
    calls = [part for part in parts if isinstance(part, ToolCallPiece)]
    assert len(calls) == len(parts) > 0 and {part.index for part in calls} == {0}
    assert calls[0].id and not any(part.id or part.name for part in calls[1:])
    assert isinstance(end, LlmEnd) and end.reason == "tool_calls"
    return calls[0].name, json.loads("".join(part.arguments for part in calls))


async def test_a_reply_says_why_it_ended_and_what_it_cost(make: Callable[[int], tuple[Llama, Watch]]) -> None:
    llama, _ = make(1)
    question = asking("What is the capital of France?")
    whole, again = await pieces_of(llama, question), await pieces_of(llama, question)
    assert isinstance(whole[-1], LlmEnd) and whole == again, "what is in the cache counts, too"
    assert whole[-1].reason == "stop" and len(whole) - 1 <= whole[-1].completion_tokens <= len(whole) + 1
    assert 25 < whole[-1].prompt_tokens < 50
    cut = await pieces_of(llama, question, max_tokens=3)
    assert cut == [*whole[:3], LlmEnd("length", whole[-1].prompt_tokens, 3)]
    stopped = await pieces_of(llama, asking("Count from one to ten."), stop=("five", "5"))
    assert text_of(stopped) and not {"five", "5"} & set(text_of(stopped).lower().split())
    assert isinstance(stopped[-1], LlmEnd) and stopped[-1].reason == "stop"


async def test_without_a_limit_the_window_ends_a_reply(model_dir: Callable[[str], Path]) -> None:
    path = next(model_dir("qwen2.5-coder-0.5b-instruct-q4_k_m").glob("*.gguf"))
    llama = Llama(path, threads=1, slots=1, context_tokens=256)
    try:
        *_, end = await pieces_of(llama, asking("Write the word hello 2000 times."), max_tokens=0)
    finally:
        await llama.close()
    assert isinstance(end, LlmEnd) and end.reason == "length"
    assert end.prompt_tokens + end.completion_tokens in (256, 257)


async def test_a_seed_makes_a_reply_repeatable(make: Callable[[int], tuple[Llama, Watch]]) -> None:
    llama, _ = make(1)
    told = [
        text_of(await pieces_of(llama, asking("Tell me a story."), max_tokens=16, temperature=1.5, seed=seed))
        for seed in (-5, -5, 7, 8, 9)
    ]
    assert told[0] == told[1] and len(set(told)) > 2


async def test_a_reply_keeps_to_a_schema(make: Callable[[int], tuple[Llama, Watch]]) -> None:
    llama, _ = make(1)
    schema = {
        "type": "object",
        "properties": {"mood": {"enum": ["blue", "green"]}, "score": {"type": "integer"}},
        "required": ["mood", "score"],
        "additionalProperties": False,
    }
    found = json.loads(text_of(await pieces_of(llama, asking("Tell me a joke."), json_schema=schema)))
    assert found["mood"] in ("blue", "green") and isinstance(found["score"], int) and len(found) == 2
    anything = json.loads(text_of(await pieces_of(llama, asking("Describe a person."), json_schema={})))
    assert isinstance(anything, dict)
    with pytest.raises(BadInput, match="schema"):
        await pieces_of(llama, asking("Hello."), json_schema={"type": "nonsense"})
    assert await answer(llama, asking("Hello."))


# --- tools ------------------------------------------------------------------------------------------


async def test_it_calls_a_tool_and_says_what_came_of_it(make: Callable[[int], tuple[Llama, Watch]]) -> None:
    llama, _ = make(1)
    asked = asking("What is the weather in Paris?")
    name, arguments = call_of(await pieces_of(llama, asked, tools=(WEATHER,)))
    assert name == "get_weather" and arguments["city"] == "Paris"
    call = ToolCall("call-1", name, json.dumps(arguments))
    told = [
        *asked,
        ChatMessage("assistant", "", (call,)),
        ChatMessage("tool", "sunny, 21 degrees", (), "call-1"),
    ]
    for tools in ((WEATHER,), (WEATHER, CLOCK), ()):
        said = await pieces_of(llama, told, tools=tools)
        assert "sunny" in text_of(said) and "21" in text_of(said) and "{" not in text_of(said)
        assert isinstance(said[-1], LlmEnd) and said[-1].reason == "stop"
        assert not any(isinstance(piece, ToolCallPiece) for piece in said)


@pytest.mark.parametrize("choice", ["required", "get_weather", "get_time"])
async def test_a_call_can_be_demanded(make: Callable[[int], tuple[Llama, Watch]], choice: str) -> None:
    llama, _ = make(1)
    pieces = await pieces_of(llama, asking("Tell me a joke."), tools=(WEATHER, CLOCK), tool_choice=choice)
    name, arguments = call_of(pieces)
    assert name in ((choice,) if choice != "required" else ("get_weather", "get_time"))
    if name == "get_weather":
        assert arguments["unit"] in ("celsius", "fahrenheit") and len(arguments) == 2


async def test_tools_that_are_not_to_be_called_are_not(make: Callable[[int], tuple[Llama, Watch]]) -> None:
    llama, _ = make(1)
    question = asking("What is the weather in Paris?")
    said = await pieces_of(llama, question, tools=(WEATHER,), tool_choice="none")
    assert text_of(said) and not any(isinstance(piece, ToolCallPiece) for piece in said)
    with pytest.raises(BadInput, match="get_rain"):
        await pieces_of(llama, question, tools=(WEATHER,), tool_choice="get_rain")


async def test_a_call_that_was_no_json_can_be_told_of(make: Callable[[int], tuple[Llama, Watch]]) -> None:
    llama, _ = make(1)
    told = [
        *asking("What is the weather in Paris?"),
        ChatMessage("assistant", "", (ToolCall("call-1", "get_weather", "{city: Paris"),)),
        ChatMessage("tool", "those arguments are no JSON", (), "call-1"),
    ]
    assert await pieces_of(llama, told, tools=(WEATHER,))


async def test_closing_a_call_stops_it(make: Callable[[int], tuple[Llama, Watch]]) -> None:
    llama, watch = make(1)
    options = LlmOptions(400, 0.0, tools=(WEATHER,), tool_choice="required")
    reply = llama.reply(asking("Tell me a joke."), options, Job("ann"))
    assert isinstance(await anext(reply), ToolCallPiece)
    await reply.aclose()
    async with asyncio.timeout(30):
        while watch.running:
            await asyncio.sleep(0.01)


async def test_what_was_read_ahead_with_tools_is_not_read_again(
    make: Callable[[int], tuple[Llama, Watch]],
) -> None:
    llama, watch = make(2)
    tools = (WEATHER, CLOCK)
    asked = asking("What is the weather in", "Where?", "What is the weather in Paris?")
    await llama.prepare(asked, Job("ann"), tools)
    assert await llama.completeness(asked, Job("ann"), tools) is not None
    cached, read = watch.counts()
    assert cached > 200 and read <= 2, "as far as the last word"
    # Two tokens are enough to see it, and a call would end it before the core has told its counts.
    await pieces_of(llama, asked, tools=tools, max_tokens=2)
    cached, read = watch.counts()
    assert cached > 200 and read <= 8, "what leads over to the answer"


async def test_without_tools_nothing_is_asked_of_them(make: Callable[[int], tuple[Llama, Watch]]) -> None:
    llama, watch = make(1)
    await answer(llama, asking("Hello."), "ann", 1)
    body = watch.requests[0][0]
    assert not {"tools", "tool_choice", "json_schema", "stop", "seed", "top_p"} & set(body)
    assert body["messages"] == [
        {"role": "system", "content": SYSTEM.content},
        {"role": "user", "content": "Hello."},
    ]
