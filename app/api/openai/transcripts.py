"""Transcripts as OpenAI's clients know them: segments, subtitles, JSON."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from app.dialogue.agreement import join_words
from app.dialogue.exchange import Heard
from app.dialogue.segmenter import is_abbreviation
from app.roles import Word

_LONGEST = 84
"""Characters in a segment, two lines of a subtitle; Chinese and Japanese ones count twice."""
_GAP_S = 1.0
"""A silence that ends a segment."""
_ENDS = tuple(".?!。？！…")
_CLOSERS = "\"'”’」』)）]"

_LANGUAGES = dict(
    pair.split(":")
    for pair in """
    en:english zh:chinese de:german es:spanish ru:russian ko:korean fr:french ja:japanese pt:portuguese
    tr:turkish pl:polish ca:catalan nl:dutch ar:arabic sv:swedish it:italian id:indonesian hi:hindi
    fi:finnish vi:vietnamese he:hebrew uk:ukrainian el:greek ms:malay cs:czech ro:romanian da:danish
    hu:hungarian ta:tamil no:norwegian th:thai ur:urdu hr:croatian bg:bulgarian lt:lithuanian la:latin
    mi:maori ml:malayalam cy:welsh sk:slovak te:telugu fa:persian lv:latvian bn:bengali sr:serbian
    az:azerbaijani sl:slovenian kn:kannada et:estonian mk:macedonian br:breton eu:basque is:icelandic
    hy:armenian ne:nepali mn:mongolian bs:bosnian kk:kazakh sq:albanian sw:swahili gl:galician
    mr:marathi pa:punjabi si:sinhala km:khmer sn:shona yo:yoruba so:somali af:afrikaans oc:occitan
    ka:georgian be:belarusian tg:tajik sd:sindhi gu:gujarati am:amharic yi:yiddish lo:lao uz:uzbek
    fo:faroese ht:haitian_creole ps:pashto tk:turkmen nn:nynorsk mt:maltese sa:sanskrit lb:luxembourgish
    my:myanmar bo:tibetan tl:tagalog mg:malagasy as:assamese tt:tatar haw:hawaiian ln:lingala ha:hausa
    ba:bashkir jw:javanese su:sundanese yue:cantonese""".split()
)


def language_code(given: str) -> str:
    """The ISO 639-1 code of "en", "EN", "en-US" or "english"."""
    code = given.strip().lower().replace("_", "-").partition("-")[0]
    return next((c for c, name in _LANGUAGES.items() if name == code), code)


def language_name(code: str) -> str:
    """As OpenAI names it, "english"; the code itself where it has no name."""
    return _LANGUAGES.get(code, code).replace("_", " ")


@dataclass(frozen=True, slots=True)
class Segment:
    """A sentence or so. `text` begins with the space that parts it from what is before it; `seek` is
    where the stretch that it was heard in begins, in 1/100 s."""

    id: int
    seek: int
    text: str
    words: Sequence[Word]
    no_speech: float

    @property
    def start(self) -> float:
        return self.words[0].start

    @property
    def end(self) -> float:
        return self.words[-1].end

    def body(self, temperature: float) -> dict[str, Any]:
        """As JSON."""
        data = self.text.encode()
        logs = [math.log(max(word.confidence, 1e-6)) for word in self.words]
        return {
            "id": self.id,
            "seek": self.seek,
            "start": round(self.start, 2),
            "end": round(self.end, 2),
            "text": self.text,
            "tokens": [],
            "temperature": temperature,
            "avg_logprob": round(sum(logs) / len(logs), 4),
            "compression_ratio": round(len(data) / len(zlib.compress(data)), 4),
            "no_speech_prob": round(self.no_speech, 4),
        }


def continued(before: str, words: Sequence[Word]) -> str:
    """The text of `words`, with a space before it if it follows the word `before` and needs one."""
    texts = [word.text for word in words]
    return join_words([before, *texts])[len(before) :] if before else join_words(texts)


def segments(pieces: Sequence[Heard]) -> list[Segment]:
    """Their texts joined are the text of all `pieces`."""
    found: list[Segment] = []
    before = ""
    for piece in pieces:
        for words in _cut(piece.words):
            text = continued(before, words)
            found.append(Segment(len(found), round(piece.start * 100), text, words, piece.no_speech))
            before = words[-1].text
    return found


def _cut(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    begin = length = 0
    for i, word in enumerate(words):
        size = 1 + sum(2 if c >= "\u3000" else 1 for c in word.text)
        if i > begin and (
            _ends_sentence(words[i - 1].text)
            or word.start - words[i - 1].end > _GAP_S
            or length + size > _LONGEST
        ):
            yield words[begin:i]
            begin, length = i, 0
        length += size
    if begin < len(words):
        yield words[begin:]


def _ends_sentence(word: str) -> bool:
    word = word.rstrip(_CLOSERS)
    return word.endswith(_ENDS) and not (word.endswith(".") and is_abbreviation(word, len(word) - 1))


def srt(lines: Sequence[Segment]) -> str:
    """SubRip subtitles."""
    return "".join(
        f"{i}\n{_clock(s.start, ',')} --> {_clock(s.end, ',')}\n{s.text.strip()}\n\n"
        for i, s in enumerate(lines, 1)
    )


def vtt(lines: Sequence[Segment]) -> str:
    """WebVTT subtitles."""
    return "WEBVTT\n\n" + "".join(
        f"{_clock(s.start, '.')} --> {_clock(s.end, '.')}\n{s.text.strip()}\n\n" for s in lines
    )


def _clock(seconds: float, point: str) -> str:
    whole, ms = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{ms:03}"
