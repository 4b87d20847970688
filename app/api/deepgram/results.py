"""Deepgram's messages and answers."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from app.api.deepgram.options import Options
from app.dialogue.agreement import join_words, split_words
from app.dialogue.utterance import FinalWords
from app.roles import EngineInfo, SpeakerSpan, Word

Json = dict[str, Any]

_EDGES = re.compile(r"^[^\w$€£]+|[^\w%]+$")
_SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’)\]]*$")
_NEW_PARAGRAPH_S = 1.5
_SENTENCES = 5
_MODELS = uuid.UUID("6b6c6e6f-6ac2-5bd5-9a4f-6f1f6f6c7175")


def spread(text: str, start: float, end: float, confidence: float) -> list[Word]:
    """The words of `text`, of which nobody knows better than that they lie between `start` and `end`."""
    texts = split_words(text)
    total = sum(len(t) + 1 for t in texts)
    words: list[Word] = []
    at = start
    for word in texts:
        span = (len(word) + 1) / total * max(0.0, end - start)
        words.append(Word(word, at, at + span, confidence))
        at += span
    return words


def in_order(words: Iterable[Word], offset: float, earliest: float) -> list[Word]:
    """`words` moved by `offset`, none of which begins before the one before it ends, or before
    `earliest`: recognisers are off by some hundredths of a second."""
    ordered: list[Word] = []
    for word in words:
        start = max(word.start + offset, earliest)
        earliest = max(word.end + offset, start)
        ordered.append(Word(word.text, start, earliest, word.confidence))
    return ordered


def bare(text: str) -> str:
    """A word without case and punctuation."""
    return _EDGES.sub("", text).lower() or text


def transcript(words: Sequence[Word], options: Options) -> str:
    """`words` as text, as it was asked for."""
    return join_words([w.text if options.punctuate else bare(w.text) for w in words])


def _word(word: Word, options: Options, speaker: int) -> Json:
    told: Json = {
        "word": bare(word.text),
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "confidence": round(word.confidence, 4),
    }
    if options.punctuate:
        told["punctuated_word"] = word.text
    if options.diarize:
        told["speaker"] = speaker
    return told


SpeakerOf = Callable[[Word], int]
"""Who said a word."""


def nobody_told(word: Word) -> int:
    """Where speakers are not told apart."""
    return 0


def speaker_of(spans: Sequence[SpeakerSpan]) -> SpeakerOf:
    """Who speaks in the middle of a word, or nearest to it."""

    def found(word: Word) -> int:
        at = (word.start + word.end) / 2
        span = min(spans, key=lambda s: max(s.start - at, at - s.end, 0.0), default=None)
        return int(span.speaker.rpartition("_")[2]) if span is not None else 0

    return found


def alternative(
    words: Sequence[Word], options: Options, confidence: float, who: SpeakerOf = nobody_told
) -> Json:
    """One reading of a stretch of sound, which is all we have."""
    return {
        "transcript": transcript(words, options),
        "confidence": round(confidence, 4),
        "words": [_word(w, options, who(w)) for w in words],
    }


@dataclass(slots=True)
class Request:
    """What all messages about one stream or file share."""

    options: Options
    engine: EngineInfo
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def model_uuid(self) -> str:
        """The same for the same model, everywhere."""
        return str(uuid.uuid5(_MODELS, f"{self.engine.name}/{self.engine.model}"))

    @property
    def model_info(self) -> Json:
        """The model by the name that it was asked for by; its version is the one that serves."""
        served = self.engine.model or self.engine.name
        return {"name": self.options.model or served, "version": served, "arch": self.engine.name}

    def results(
        self,
        words: Sequence[Word],
        start: float,
        end: float,
        *,
        confidence: float,
        final: bool,
        over: bool = False,
        flushed: bool = False,
        speaker: int = 0,
    ) -> Json:
        """A stretch of a stream. `final`: it will not change; `over`: and there speech ended; `flushed`:
        because the client asked."""
        metadata: Json = {
            "request_id": self.id,
            "model_info": self.model_info,
            "model_uuid": self.model_uuid,
        }
        if self.options.extra:
            metadata["extra"] = self.options.extra
        return {
            "type": "Results",
            "channel_index": [0, 1],
            "duration": round(max(0.0, end - start), 3),
            "start": round(start, 3),
            "is_final": final,
            "speech_final": over,
            "channel": {"alternatives": [alternative(words, self.options, confidence, lambda word: speaker)]},
            "metadata": metadata,
            "from_finalize": flushed,
        }

    def metadata(self, sha256: str, seconds: float) -> Json:
        """What a stream's last message, and a file's answer, say of it."""
        told: Json = {
            "transaction_key": "deprecated",
            "request_id": self.id,
            "sha256": sha256,
            "created": self.created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "duration": round(seconds, 3),
            "channels": 1,
            "models": [self.model_uuid],
            "model_info": {self.model_uuid: self.model_info},
        }
        if self.options.tags:
            told["tags"] = list(self.options.tags)
        if self.options.extra:
            told["extra"] = self.options.extra
        if self.options.ignored:
            told["warnings"] = [
                {
                    "parameter": name,
                    "type": "unsupported_parameter",
                    "message": f"{name} changes nothing here",
                }
                for name in self.options.ignored
            ]
        return told

    def answer(self, heard: FinalWords, sha256: str, seconds: float, who: SpeakerOf = nobody_told) -> Json:
        """What was said in a file, and by whom."""
        options = self.options
        words = in_order(heard.words, 0.0, 0.0)
        best = alternative(words, options, heard.confidence, who)
        if options.paragraphs:
            best["paragraphs"] = paragraphs(words, options, who)
        channel: Json = {"alternatives": [best]}
        if options.detect_language or options.language is None:
            channel["detected_language"] = heard.language
        results: Json = {"channels": [channel]}
        if options.utterances:
            results["utterances"] = utterances(words, options, who)
        return {"metadata": self.metadata(sha256, seconds), "results": results}


def utterances(words: Sequence[Word], options: Options, who: SpeakerOf = nobody_told) -> list[Json]:
    """`words` in stretches of one speaker without a gap of `options.utterance_gap` seconds."""
    told: list[Json] = []
    for stretch in _cut(words, lambda a, b: b.start - a.end >= options.utterance_gap or who(a) != who(b)):
        confidence = sum(w.confidence for w in stretch) / len(stretch)
        utterance: Json = {
            "start": round(stretch[0].start, 3),
            "end": round(stretch[-1].end, 3),
            "channel": 0,
            **alternative(stretch, options, confidence, who),
            "id": str(uuid.uuid4()),
        }
        if options.diarize:
            utterance["speaker"] = who(stretch[0])
        told.append(utterance)
    return told


def paragraphs(words: Sequence[Word], options: Options, who: SpeakerOf = nobody_told) -> Json:
    """Sentences, and a few of them, or those before a long pause or another speaker, as a paragraph."""

    def ends(before: Word, after: Word) -> bool:
        over = bool(_SENTENCE_END.search(before.text)) or who(before) != who(after)
        return over or after.start - before.end >= _NEW_PARAGRAPH_S

    sentences = _cut(words, ends)
    groups: list[list[list[Word]]] = []
    for sentence in sentences:
        group = groups[-1] if groups else []
        last = group[-1][-1] if group else sentence[0]
        paused = sentence[0].start - last.end >= _NEW_PARAGRAPH_S or who(sentence[0]) != who(last)
        if not group or paused or len(group) >= _SENTENCES:
            groups.append([sentence])
        else:
            group.append(sentence)
    told: list[Json] = []
    for group in groups:
        paragraph: Json = {
            "sentences": [
                {
                    "text": transcript(s, options),
                    "start": round(s[0].start, 3),
                    "end": round(s[-1].end, 3),
                }
                for s in group
            ],
            "start": round(group[0][0].start, 3),
            "end": round(group[-1][-1].end, 3),
            "num_words": sum(len(s) for s in group),
        }
        if options.diarize:
            paragraph["speaker"] = who(group[0][0])
        told.append(paragraph)
    text = ""
    speaker: int | None = None
    for group in groups:
        text += "\n\n" if text else "\n"
        if options.diarize and who(group[0][0]) != speaker:
            speaker = who(group[0][0])
            text += f"Speaker {speaker}: "
        text += transcript([w for s in group for w in s], options)
    return {"transcript": text, "paragraphs": told}


def _cut(words: Sequence[Word], between: Callable[[Word, Word], bool]) -> list[list[Word]]:
    """`words` in stretches, cut where `between(before, after)`."""
    stretches: list[list[Word]] = []
    for word in words:
        if stretches and not between(stretches[-1][-1], word):
            stretches[-1].append(word)
        else:
            stretches.append([word])
    return stretches
