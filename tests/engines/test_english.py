"""English to phonemes. What is written with figures and signs must sound like its words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from app.engines.english import EnglishPhonemes, english_phonemes


@pytest.fixture(scope="module")
def phonemes() -> EnglishPhonemes:
    return english_phonemes()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("It costs $3.50 today.", "It costs three dollars fifty cents today."),
        ("At 10:30 we left.", "At ten thirty we left."),
        ("the 2nd of May", "the second of May"),
        ("Dr. Lee", "Doctor Lee"),
        ("Pi is 3.14.", "Pi is three point one four."),
        ("50% of it", "fifty percent of it"),
        ("¥100", "one hundred yen"),
        ("72°F or 22 °C", "seventy two degrees Fahrenheit or twenty two degrees Celsius"),
        ("5km at 60km/h", "five kilometers at sixty kilometers per hour"),
        ("1/2 cup", "one half cup"),
        ("1,000,000 people", "one million people"),
        ("in the 1990s", "in the nineteen nineties"),
        ("3 x 4 = 12", "three times four equals twelve"),
        ("5–10 or 5-10", "five to ten or five to ten"),
        ("C++ and C#", "C plus plus and C sharp"),
        ("R&D", "R and D"),
        ("me@site.com", "me at site dot com"),
        ("e.g. this", "for example, this"),
        ("chapter IV", "chapter four"),
        ("He said (softly) - then left.", "He said, softly, then left."),
        ("don’t", "don't"),
        ("café", "cafe"),
        ("2024-03-05", "March fifth, twenty twenty four"),
        ("Call 555-1234.", "Call five five five, one two three four."),
    ],
)
def test_it_sounds_like_its_words(phonemes: EnglishPhonemes, written: str, said: str) -> None:
    assert phonemes(written) == phonemes(said)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("Dr. Lee paid $3.50 for the 2nd cup.", [1, 1, 1, 4, 1, 1, 1, 1]),
        ("3.14 3.14 $5 million", [4, 4, 2, 1]),
        ("3 x 4 = 12", [1, 1, 1, 1, 1]),
        ("Call 555-1234 now - e.g. 5km at 60km/h", [1, 7, 1, 0, 2, 2, 1, 4]),
        ("me@site.com (10:30 a.m.), 你好 C++", [5, 3, 0, 0, 3]),
    ],
)
def test_what_is_said_for_each_written_word(phonemes: EnglishPhonemes, text: str, counts: list[int]) -> None:
    traced = phonemes.traced(text)
    begins = [0, *(i + 1 for i, c in enumerate(traced.text) if c == " ")]
    owners = [len(text[: traced.at[i] + 1].split()) - 1 for i in begins]
    assert [owners.count(i) for i in range(len(text.split()))] == counts


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("I read it yesterday.", "ɹˈɛd"),
        ("I will read it tomorrow.", "ɹˈiːd"),
        ("I live here.", "lˈɪv"),
        ("Please close the door.", "klˈoʊz"),
        ("They are very close friends.", "klˈoʊs"),
        ("You can use it.", "jˈuːz"),
        ("the apple", "ðɪ"),
        ("the pear", "ðə"),
        ("over it", "ˌoʊvɚɹ"),
        ("over there", "ˌoʊvɚ"),
        ("plan A", "ˈeɪ"),
        ("a plan", "ɐ"),
    ],
)
def test_readings_hang_on_the_sentence(phonemes: EnglishPhonemes, text: str, reading: str) -> None:
    assert reading in phonemes(text).rstrip(".").split()


def test_initials_are_spelled_and_acronyms_are_not(phonemes: EnglishPhonemes) -> None:
    assert phonemes("USB") == "jˌuːˌɛsbˈiː"
    assert phonemes("U.S.A.") == phonemes("USA")
    assert phonemes("US") != phonemes("us")
    assert phonemes("NASA") == phonemes("nasa") == "nˈæsɐ"
    assert phonemes("OpenAI").startswith(phonemes("open"))


def test_words_that_no_lexicon_has(phonemes: EnglishPhonemes) -> None:
    assert phonemes("Zhang's blorfing snorkelbees").count("ˈ") >= 3


def test_punctuation_is_kept_once(phonemes: EnglishPhonemes) -> None:
    assert phonemes("Wait... what?! “No,” he said: go; now!").count(",") == 2
    assert phonemes("Yes!! Really?") == "jˈɛs! ɹˈiəli?" or phonemes("Yes!! Really?").endswith("?")
    assert phonemes("...") == phonemes("?!") == phonemes("") == phonemes("你好") == ""


def test_every_phoneme_has_an_id(phonemes: EnglishPhonemes, model_dir: Callable[[str], Path]) -> None:
    config = model_dir("piper-joe") / "en_US-joe-medium.onnx.json"
    ids = json.loads(config.read_text(encoding="utf-8"))["phoneme_id_map"]
    used = {c for word in phonemes._lexicon.values() for c in word}
    used |= {c for readings in phonemes._readings.values() for r in readings.values() for c in r}
    assert used <= set(ids)
