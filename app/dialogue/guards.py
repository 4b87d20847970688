"""Words that nobody said: what recognisers write for silence, music and noise."""

from __future__ import annotations

import re
from dataclasses import replace

from app.dialogue.agreement import join_words, split_words
from app.roles import Transcript

_TAGS = re.compile(r"[\[(*♪][^\])*♪]*[\])*♪]")
_WORDLESS = re.compile(r"[\W_]+")
# What Whisper and its kin learned from subtitles to write when there is nothing to write.
_SUBTITLES = re.compile(
    r"^(thank(s| you)( (so|very) much)?( for watching)?|you|bye( bye)?|okay|please subscribe.*|subtitles by.*"
    r"|so|the end|字幕.*|谢谢(大家|观看|收看)?|請不吝點贊.*|请不吝点赞.*|明镜.*"
    r"|ご視聴ありがとうございました)$"
)
_MAX_WORDS_PER_SECOND = 9.0
_LOW_CONFIDENCE = 0.55
_NO_SPEECH = 0.6
_GUESSED = 0.25
"""Whisper base is at most 0.15 sure of the words that it writes for noise (`corpus.noise`)."""


def cleaned(transcript: Transcript) -> Transcript:
    """Without sound tags ("[Music]") and without words that are only punctuation."""
    if transcript.words:
        words = tuple(w for w in transcript.words if _WORDLESS.sub("", w.text))
        if len(words) == len(transcript.words) and not _TAGS.search(transcript.text):
            return transcript
        text = _TAGS.sub(" ", join_words([w.text for w in words]))
        kept = set(split_words(text))
        return replace(
            transcript, text=join_words(split_words(text)), words=tuple(w for w in words if w.text in kept)
        )
    words_only = [w for w in split_words(_TAGS.sub(" ", transcript.text)) if _WORDLESS.sub("", w)]
    return replace(transcript, text=join_words(words_only))


def nobody_said(text: str, confidence: float, no_speech: float, voiced_ms: float) -> bool:
    """Whether `text` is the recogniser's invention rather than speech.

    `confidence` and `no_speech` (0–1) are the recogniser's, `voiced_ms` is how much of the
    utterance the voice detector held for speech.
    """
    bare = _WORDLESS.sub(" ", text.lower()).strip()
    if not bare:
        return True
    if no_speech > 0.9 and confidence < _LOW_CONFIDENCE:
        return True
    if no_speech > _NO_SPEECH and confidence < _GUESSED:
        return True
    if _SUBTITLES.match(bare) and (confidence < 0.5 or no_speech > _NO_SPEECH):
        return True
    words = len(split_words(text))
    return words > 6 and words / max(voiced_ms / 1000, 0.1) > _MAX_WORDS_PER_SECOND


def doubtful(confidence: float, no_speech: float) -> bool:
    """Whether the words are to be marked low-confidence."""
    return confidence < _LOW_CONFIDENCE or no_speech > _NO_SPEECH
