from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dialogue.agreement import Agreement, align, join_words, nearly_same_words, split_words

_WORDS = st.lists(st.sampled_from(["a", "b", "c", "d.", "E", "你", "好，"]), max_size=12)


def test_words_are_firm_when_three_passes_agree_and_a_word_follows() -> None:
    agreement = Agreement()
    agreement.update("it was".split())
    agreement.update("it was the".split())
    assert agreement.committed == ""
    agreement.update("it was the best".split())
    assert agreement.committed == "it was"
    agreement.update("it was the best of times".split())
    assert agreement.committed == "it was the"
    assert agreement.text == "it was the best of times"


def test_a_word_that_the_pass_is_unsure_of_is_not_firm() -> None:
    agreement = Agreement()
    for _ in range(4):
        agreement.update("it was the best".split(), [0.9, 0.5, 0.9, 0.9])
    assert agreement.committed == "it"


def test_a_firm_number_is_not_said_again_when_the_final_pass_writes_it_in_digits() -> None:
    agreement = Agreement()
    agreement.firm, agreement.soft = ["Seven"], ["of", "clubs."]
    words, _ = agreement.finish("7 of clubs.".split())
    assert words == ["Seven", "of", "clubs."]


def test_what_two_recognisers_write_differently_is_the_same() -> None:
    assert nearly_same_words("Press one to accept, or two.", "press 1 to accept or 2")
    assert not nearly_same_words("Press one", "Press nine")
    # A name is no word that sounds alike.
    assert not nearly_same_words("What is the weather in pairs today?", "What is the weather in Paris today?")
    said = "Which folder should I say this message to?"
    assert nearly_same_words(said, "Which folder should I say this message too?")
    for other in (
        "Which folder should I say this message?",
        "Which folder should I save his message too?",
        "Which finger should I say this message to?",
    ):
        assert not nearly_same_words(said, other)
    assert not nearly_same_words("You can leave it in the house", "You can't leave it in the house")
    assert not nearly_same_words("Wake me up at half past 6", "Wake me up at half past 5")


def test_a_firm_word_stays_when_a_later_pass_disagrees() -> None:
    agreement = Agreement()
    for text in (
        "he was not an ill",
        "he was not an ill",
        "he was not an ill man",
        "he was not and old man today",
    ):
        agreement.update(text.split())
    assert agreement.committed.startswith("he was not an")
    assert agreement.text.endswith("man today")


def test_the_final_pass_is_spliced_behind_the_firm_words() -> None:
    agreement = Agreement()
    agreement.firm = "He was not an ill-sposed young".split()
    agreement.soft = ["man."]
    words, sources = agreement.finish("He was not an ill suppose it young man.".split())
    assert " ".join(words) == "He was not an ill-sposed young man."
    assert sources[-1] == 8 and sources[0] == 0


def test_the_soft_words_hold_the_firm_ones_in_place() -> None:
    cut, matches = align("an old sposed young".split(), ["man"], "an old-sposed young man indeed".split())
    assert cut == 3
    assert matches[-1] == 2


@pytest.mark.parametrize(
    ("firm", "soft", "final", "text"),
    [
        ("Five,", "five, five,", "5 5", "Five, 5"),
        (
            "There is a temporary greeting which overrides your",
            "greeting which overrides your standard greeting.",
            "There is a temporary greeting which overrides your standard greetings.",
            "There is a temporary greeting which overrides your standard greetings.",
        ),
    ],
)
def test_words_that_come_twice_are_not_written_three_times(
    firm: str, soft: str, final: str, text: str
) -> None:
    agreement = Agreement()
    agreement.firm, agreement.soft = firm.split(), soft.split()
    words, _ = agreement.finish(final.split())
    assert " ".join(words) == text


def test_words_that_the_new_hypothesis_lacks_take_none_of_it() -> None:
    assert align(["a", "b"], [], []) == (0, [None, None])
    assert align([], ["x"], ["y", "z"]) == (0, [])


def test_chinese_characters_are_words_and_keep_their_punctuation() -> None:
    assert split_words("你好，我是Bob。 hello") == ["你", "好，", "我", "是", "Bob。", "hello"]
    assert join_words(["你", "好，", "我"]) == "你好，我"
    assert join_words(["hello", "there,", "Bob"]) == "hello there, Bob"


@given(st.lists(_WORDS, max_size=8))
def test_what_is_committed_only_grows(passes: list[list[str]]) -> None:
    agreement = Agreement()
    firm: list[str] = []
    for words in passes:
        agreement.update(words)
        assert agreement.firm[: len(firm)] == firm
        firm = list(agreement.firm)
    final, sources = agreement.finish(["x", "y"])
    assert final[: len(firm)] == firm
    assert len(final) == len(sources)


@given(_WORDS, _WORDS, _WORDS)
def test_align_gives_a_cut_within_and_rising_matches(
    firm: list[str], soft: list[str], heard: list[str]
) -> None:
    cut, matches = align(firm, soft, heard)
    assert 0 <= cut <= len(heard)
    found = [m for m in matches if m is not None]
    assert found == sorted(set(found))
    assert all(m < cut for m in found)
