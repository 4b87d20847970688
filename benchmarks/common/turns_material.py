"""What is said to the session in `turn_taking`: recordings of people, with and without pauses.

Where no recording was found (hesitations, nods, short commands) our own voice says it, at another
pitch; the rows of the tables say so.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from app.roles import SAMPLE_RATE, Job, Samples, SpeechToText, SttOptions
from app.talk.recording import Recording
from benchmarks.common.turns_sound import (
    another_person,
    at_level,
    boundary,
    cough,
    joined,
    room_tone,
    seconds,
    speech_span,
    throat,
    typing,
    with_pause,
)
from corpus import load, noise, questions, recordings

Say = Callable[[str], Awaitable[Samples]]
"""A voice, at its own rate."""

INSERTED = (0.3, 0.6, 1.0)
_REAL = (0.3, 1.2)
"""Seconds of the longest silence of those that are said with pauses of their own."""
_SENTENCE_END = re.compile(r"[.!?;] ")
_BLOCK = SAMPLE_RATE // 100
_SPEAKING = -26.0
"""Level of what is said over a reply, dBFS."""
_HIGHER = (1.12, 1.3)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is said, or one noise. `row` is the table's row; `last` the last sample of
    speech in `sound`, `first` the first."""

    id: str
    row: str
    sound: Samples
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Over:
    """Something that happens while a reply plays. `near` is None where only the echo is there;
    `turn` is whether the person wants the turn; `echo` the echo's level over the reply, dB."""

    id: str
    row: str
    near: Case | None
    turn: bool
    echo: float | None = None
    room: int = 0


@cache
def _sounds() -> dict[str, Samples]:
    sounds = {r.id: load(r) for r in recordings()}
    # A second of breath and handling follows the last word, loud enough to be held for speech by level.
    sounds["beckett"] = sounds["beckett"][: seconds(8.95)]
    return sounds


def _case(id_: str, row: str, sound: Samples) -> Case:
    first, last = speech_span(sound)
    return Case(id_, row, sound, first, last)


def _noise_case(id_: str, row: str, sound: Samples, level: float) -> Case:
    return Case(id_, row, at_level(sound, level), 0, len(sound) - 1)


def _longest_pause(sound: Samples) -> float:
    """Seconds of the longest silence between its first and last speech, by level."""
    recording = Recording(sound)
    first, last = speech_span(sound)
    since = [at - (recording.last_speech(at) or first) for at in range(first + _BLOCK, last, _BLOCK)]
    return max(since, default=0) / SAMPLE_RATE


# --- ends --------------------------------------------------------------------------------------


async def ends(stt: SpeechToText, say: Say, rate: int) -> list[Case]:
    """The set "ends": what is said while nothing plays. `stt` finds the word boundaries."""
    sounds = _sounds()
    asked = [r.id for r in questions()]
    cases = [_case(i, "sentences", sounds[i]) for i in asked]
    cases += [_case(f"call-{n}", "telephone talk", sounds[f"call-{n}"]) for n in range(1, 5)]
    cases += [_case(r.id, "one word", sounds[r.id]) for r in recordings("one_word")]
    cases += [_case(r.id, "digits", sounds[r.id]) for r in recordings("digits")]
    for r in recordings():
        sound = sounds[r.id]
        if r.text and r.id not in (*asked, "cities") and _REAL[0] <= _longest_pause(sound) <= _REAL[1]:
            where = "between sentences" if _SENTENCE_END.search(r.text) else "in a sentence"
            cases.append(_case(r.id, f"own pauses {where}", sound))
    options = SttOptions(language="en", word_times=True)
    for i in asked:
        transcript = await stt.transcribe(sounds[i], options, Job("material"))
        at = boundary(sounds[i], transcript.words)
        if at is None:
            continue
        for n, length in enumerate(INSERTED):
            paused = with_pause(sounds[i], at, length, seed=n)
            cases.append(_case(f"{i}+{length}", f"{length} s put in mid-sentence", paused))
    cases += [_phone(n, number) for n, number in enumerate(_NUMBERS)]
    for n, (before, after, length) in enumerate(_HESITATIONS):
        parts = [another_person(await say(text), _HIGHER[n % 2], rate) for text in (before, after)]
        tone = np.random.default_rng(n).standard_normal(seconds(length)).astype(np.float32) * np.float32(6e-4)
        cases.append(
            _case(f"hesitation-{n}", "um, and… + pause (synth.)", joined([parts[0], tone, parts[1]]))
        )
    return cases


_NUMBERS = ("555 1212", "555 019 7734", "208 946 0853", "44 20 79 46", "867 5309", "31 41 59 26")


def _phone(n: int, number: str) -> Case:
    """Digits in groups, each of them recorded, with half a second between the groups."""
    sounds = _sounds()
    parts: list[Samples] = []
    for group in number.split():
        if parts:
            parts.append(room_tone(sounds[f"digit-{group[0]}"], 0.5, n))
        for digit in group:
            sound = sounds[f"digit-{digit}"]
            first, last = speech_span(sound)
            parts.append(sound[max(0, first - 320) : last + 960])
    return _case(f"phone-{number.replace(' ', '-')}", "phone number, 0.5 s gaps", joined(parts))


_HESITATIONS = (
    ("I would like to book a table for, um", "four people tomorrow evening.", 0.6),
    ("Can you tell me, uh", "how far it is to the station?", 0.4),
    ("I need milk, bread and", "some apples from the garden.", 0.8),
    ("Please remind me to call, um", "my sister at seven.", 1.0),
    ("What I wanted to ask is, uh", "whether the museum is open on Monday.", 0.7),
    ("Turn the lights off in the kitchen and", "in the living room.", 0.5),
    ("Well, so", "we could meet on Friday.", 0.5),
    ("My address is, um", "twelve Baker Street.", 0.9),
)


def spoken_texts() -> list[str]:
    """All that our voice is needed for, in a fixed order: new ones go to the end."""
    return [*(part for before, after, _ in _HESITATIONS for part in (before, after)), *NODS, *_COMMANDS]


# --- over a reply ------------------------------------------------------------------------------

NODS = ("Yeah.", "Right.", "Okay.", "I see.", "Sure.", "Oh, wow.", "Mm-hm.", "Uh-huh.")
_HUMS = NODS[-2:]
_COMMANDS = (
    "Stop.",
    "Wait.",
    "No, I meant Tuesday.",
    "Hold on a second.",
    "Can I ask something else?",
    "That's wrong.",
)
_SENTENCES = (
    "go-forward",
    "go-somewhere",
    "prompt-vm-savefolder",
    "austen-880",
    "cities-5",
    "call-2",
    "card-5",
)
_ROOMS = (1, 2, 3)


def prelude() -> Samples:
    """The question whose answer is talked over, with a little silence around it."""
    quiet = np.zeros(seconds(0.3), np.float32)
    return np.concatenate([quiet, at_level(_sounds()["go-forward"], _SPEAKING), quiet])


async def over(say: Say, rate: int) -> list[Over]:
    """The set "over": what happens while a reply of ours plays."""
    sounds = _sounds()
    found: list[Over] = []
    for n, text in enumerate(NODS):
        sound = await say(text)
        kind = "hums" if text in _HUMS else "nods"
        for pitch in _HIGHER:
            near = _case(f"{_id(text)}-{pitch}", "", at_level(another_person(sound, pitch, rate), _SPEAKING))
            found.append(Over(near.id, f"{kind} (synth.)", near, turn=False))
            if pitch == _HIGHER[n % 2]:
                found.append(
                    Over(f"{near.id}-echo", f"{kind} over echo (synth.)", near, False, -20.0, _ROOMS[n % 3])
                )
    for seed in range(4):
        found.append(_noise(f"cough-{seed}", "coughs (synth.)", cough(seed), -24))
        found.append(_noise(f"throat-{seed}", "throat cleared (synth.)", throat(seed), -26))
    keys = [s for i, s in sounds.items() if i.startswith("key-")]
    for seed in range(3):
        found.append(_noise(f"typing-{seed}", "typing", typing(keys, 3.0, seed), -34))
    for name in ("music-1", "music-2"):
        found.append(_noise(name, "music", sounds[name][: seconds(5)], -34))
    for name in ("tones", "beep", "monkeys"):
        found.append(_noise(name, "tones, animals", sounds[name][: seconds(4)], -28))
    found.append(_noise("pink", "steady noise", noise("pink", 4.0), -40))
    found.append(_noise("hum", "steady noise", noise("hum", 4.0), -40))
    for room in _ROOMS:
        for level in (-10.0, -20.0, -30.0):
            found.append(
                Over(f"echo-{room}{level:.0f}", f"echo alone, {level:.0f} dB", None, False, level, room)
            )
    for text in _COMMANDS:
        sound = await say(text)
        for n, pitch in enumerate(_HIGHER):
            near = _case(f"{_id(text)}-{pitch}", "", at_level(another_person(sound, pitch, rate), _SPEAKING))
            found.append(Over(near.id, "commands (synth.)", near, turn=True))
            if n == 0:
                found.append(Over(f"{near.id}-echo", "commands over echo (synth.)", near, True, -20.0, 1))
    for n, name in enumerate(_SENTENCES):
        near = _case(name, "", at_level(sounds[name], _SPEAKING))
        found.append(Over(name, "sentences of people", near, turn=True))
        found.append(Over(f"{name}-echo", "sentences of people over echo", near, True, -20.0, _ROOMS[n % 3]))
    return found


def _noise(id_: str, row: str, sound: Samples, level: float) -> Over:
    return Over(id_, row, _noise_case(id_, row, sound, level), turn=False)


def _id(text: str) -> str:
    return "-".join("".join(c for c in text.lower() if c.isalnum() or c == " ").split())
