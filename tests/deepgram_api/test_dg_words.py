"""Queries, and words as Deepgram writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from app.api.deepgram.options import Options, parse
from app.api.deepgram.results import bare, in_order, paragraphs, spread, transcript, utterances
from app.roles import BadInput, Word


def words(text: str, *, gap: float = 0.1) -> list[Word]:
    return [Word(w, i * (0.3 + gap), i * (0.3 + gap) + 0.3, 0.9) for i, w in enumerate(text.split())]


@pytest.mark.parametrize(
    ("query", "field", "value"),
    [
        ("interim_results=True", "interim_results", True),
        ("interim_results=", "interim_results", True),
        ("interim_results=FALSE", "interim_results", False),
        ("endpointing=300", "endpointing", 300.0),
        ("endpointing=false", "endpointing", False),
        ("endpointing=true", "endpointing", None),
        ("", "endpointing", None),
        ("utterance_end_ms=1000", "utterance_end", 1.0),
        ("language=en-US", "language", "en"),
        ("language=multi", "language", None),
        ("", "language", ""),
        ("keywords=alpha:2&keywords=beta:-3&keyterm=Mr%20Smith", "vocabulary", ("Mr Smith", "alpha")),
        ("punctuate=false", "punctuate", False),
        ("punctuate=false&smart_format=true", "punctuate", True),
        ("smart_format=true", "paragraphs", True),
        ("channels=2&multichannel=false", "channels", 2),
        ("multichannel=true", "channels", 1),
        ("extra=a:b:c&extra=junk", "extra", {"a": "b:c"}),
        ("diarize_model=v1", "diarize", True),
        ("numerals=true&profanity_filter=false", "ignored", ("numerals",)),
        ("encoding=mulaw", "sample_rate", 8000),
        ("encoding=ALAW&sample_rate=16000", "encoding", "alaw"),
        ("whatever=1&version=latest&mip_opt_out=true", "model", ""),
    ],
)
def test_queries(query, field, value):
    assert getattr(parse(QueryParams(query), live=True), field) == value


NAMES = st.sampled_from(
    "channels encoding sample_rate endpointing utterance_end_ms utt_split language keywords keyterm extra "
    "diarize interim_results callback redact model multichannel".split()
)
VALUES = st.text(max_size=20) | st.integers().map(str) | st.floats().map(str) | st.sampled_from(["true", "²"])


@given(st.lists(st.tuples(NAMES, VALUES), max_size=5))
def test_no_query_is_more_than_refused(given_query):
    try:
        options = parse(QueryParams(given_query), live=True)
    except BadInput as error:
        assert error.field and error.message
    else:
        assert options.channels >= 1


@pytest.mark.parametrize(
    ("written", "word"),
    [
        ("Hello,", "hello"),
        ("don't.", "don't"),
        ("“Yes?”", "yes"),
        ("$5.50.", "$5.50"),
        ("50%", "50%"),
        ("—", "—"),
    ],
)
def test_bare_words(written, word):
    assert bare(written) == word


def test_a_transcript_without_punctuation():
    said = words("Well, Mr. Smith: come in.")
    assert transcript(said, Options()) == "Well, Mr. Smith: come in."
    assert transcript(said, Options(punctuate=False)) == "well mr smith come in"


def test_utterances_end_where_there_is_a_gap():
    said = [*words("One two."), *[Word(w.text, w.start + 3, w.end + 3, 0.5) for w in words("Three four.")]]
    one, two = utterances(said, Options(diarize=True))
    assert (one["transcript"], two["transcript"]) == ("One two.", "Three four.")
    assert (one["speaker"], two["confidence"], two["start"]) == (0, 0.5, 3.0)
    assert len(utterances(said, Options(utterance_gap=5))) == 1
    assert utterances([], Options()) == []


def test_paragraphs_hold_a_few_sentences():
    said = words(" ".join(f"Sentence number {i}." for i in range(7)))
    told = paragraphs(said, Options())
    assert [len(p["sentences"]) for p in told["paragraphs"]] == [5, 2]
    assert told["transcript"].startswith("\nSentence number 0. Sentence") and "\n\n" in told["transcript"]
    assert told["paragraphs"][1]["sentences"][0]["text"] == "Sentence number 5."
    assert paragraphs([], Options()) == {"transcript": "", "paragraphs": []}


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 2)), max_size=10), st.floats(0, 50))
def test_words_are_put_in_order(times, earliest):
    ordered = in_order([Word("w", start, start + span, 1.0) for start, span in times], 1.0, earliest)
    flat = [t for w in ordered for t in (w.start, w.end)]
    assert flat == sorted(flat)
    assert all(t >= earliest for t in flat)


def test_words_without_times_are_spread():
    spread_words = spread("some words 好的", 1.0, 3.0, 0.5)
    assert [w.text for w in spread_words] == ["some", "words", "好", "的"]
    assert spread_words[0].start == 1.0 and spread_words[-1].end == pytest.approx(3.0)
    assert spread("", 1.0, 3.0, 0.5) == []
