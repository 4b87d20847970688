"""What was asked in conversations, what came of it, and how it is counted."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from benchmarks.common.paced import Exchange, talking
from benchmarks.common.report import ms, note, spread
from benchmarks.common.system import System
from corpus import Recording, load, questions, wer

STAGES = {
    "voice end heard": "",  # the server's last speech frame, behind the last spoken sample as we define it
    "endpoint wait": "endpoint",
    "transcription": "stt_final",
    "LLM first token": "llm_first_token",
    "first segment": "first_segment",
    "voice (TTS)": "tts_first_audio",
    "sending": "first_audio_sent",
    "network and frames": "",  # what is left: 20 ms frames, the socket, the client, silence sent first
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A recording that was said, and what came of it."""

    session: int
    recording: Recording
    exchange: Exchange

    @property
    def transcript(self) -> str:
        """All that was heard of the recording; it may have been cut into several turns."""
        return " ".join(t.transcript for t in self.exchange.turns if t.transcript)

    @property
    def seconds(self) -> float | None:
        """The figure: last spoken sample to first audible sample received."""
        answer = self.exchange.answer
        first = answer.first_audible if answer else None
        return None if first is None else first - self.exchange.spoken

    @property
    def stages(self) -> dict[str, float]:
        """Seconds each stage took after those before it were done: what was ready in time, because it
        was begun in the closing silence, took none. They add up to `seconds`. Empty where the clock has
        gaps."""
        answer, total = self.exchange.answer, self.seconds
        if answer is None or total is None or answer.stopped_at_ms is None:
            return {}
        marks = [answer.latency.get(stage, math.nan) for stage in STAGES.values() if stage]
        if any(math.isnan(mark) for mark in marks):
            return {}
        voice_end = answer.stopped_at_ms - self.exchange.spoken_ms
        taken = [later - earlier for earlier, later in pairwise(accumulate([0.0, *marks], max))]
        rest = total * 1000 - voice_end - marks[-1]
        return {name: t / 1000 for name, t in zip(STAGES, [voice_end, *taken, rest], strict=True)}

    def as_json(self) -> dict[str, Any]:
        answer, exchange = self.exchange.answer, self.exchange
        heard = answer.heard_at if answer else None
        return {
            "session": self.session,
            "recording": self.recording.id,
            "seconds": self.seconds,
            "heard_seconds": None if heard is None else heard - exchange.spoken,
            "stages": self.stages,
            "latency": answer.latency if answer else {},
            "premature": exchange.premature,
            "turns": len(exchange.turns),
            "reply_seconds": answer.received_s if answer else None,
            "errors": exchange.errors,
            "reference": self.recording.text,
            "transcript": self.transcript,
            "wer": wer(self.recording.text, self.transcript),
            "reply": answer.reply if answer else "",
        }


async def converse(
    system: System, session: int, recordings: Sequence[Recording], together: asyncio.Barrier, *, by_ear: bool
) -> tuple[list[Asked], float]:
    """Say all recordings in one conversation; the first is for warming up and does not count. Also
    how late this client ever was, in seconds. Nobody speaks before all are `together`, and nobody
    leaves: opening a conversation may load models."""
    asked: list[Asked] = []
    sounds = [load(recording) for recording in recordings]  # now: reading would hold up the microphone
    async with talking(system, by_ear=by_ear) as talker:
        await together.wait()
        await talker.ask(sounds[0])
        talker.lag = 0.0
        for number, (recording, sound) in enumerate(zip(recordings[1:], sounds[1:], strict=True), 1):
            one = Asked(session, recording, await talker.ask(sound))
            asked.append(one)
            begin = f"{system.name} session {session} turn {number}"
            note(f"{begin}: {ms(one.seconds)} ms  {recording.id}  {one.transcript}")
        await together.wait()
    return asked, talker.lag


def chosen(session: int, sessions: int, turns: range) -> list[Recording]:
    """The recordings of `turns`, and the one before them to warm up; sessions begin at different
    places of the list."""
    all_ = questions()
    first = session * len(all_) // sessions
    return [all_[(first + i) % len(all_)] for i in (turns.start - 1, *turns)]


async def converse_all(
    system: System, sessions: int, turns: range, *, by_ear: bool
) -> tuple[list[Asked], float]:
    """All sessions at once: what was asked, and how late the client ever was, in seconds."""
    together = asyncio.Barrier(sessions)
    async with asyncio.TaskGroup() as group:
        talks = [
            group.create_task(converse(system, n, chosen(n, sessions, turns), together, by_ear=by_ear))
            for n in range(sessions)
        ]
    asked = [one for talk in talks for one in talk.result()[0]]
    return asked, max(talk.result()[1] for talk in talks)


def summary(asked: Sequence[Asked]) -> dict[str, Any]:
    """The figures of a run; times in seconds."""
    rows = [one.as_json() for one in asked]
    staged = [one.stages for one in asked if one.stages]
    return {
        "voice_to_voice": spread(row["seconds"] for row in rows if row["seconds"] is not None),
        "heard": spread(row["heard_seconds"] for row in rows if row["heard_seconds"] is not None),
        "stages": {name: spread(s[name] for s in staged) for name in STAGES},
        "turns": len(rows),
        "premature_answers": sum(row["premature"] for row in rows),
        "missing_answers": sum(row["seconds"] is None for row in rows),
        "split_into_several_turns": sum(row["turns"] > 1 for row in rows),
        "errors": [error for row in rows for error in row["errors"]],
        "reply": spread(row["reply_seconds"] for row in rows if row["reply_seconds"] is not None),
        "wer": wer([row["reference"] for row in rows], [row["transcript"] for row in rows]),
    }
