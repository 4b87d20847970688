"""Text as a language model writes it, made speakable, and cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engines.speech_text import pieces, speakable, spoken_pieces


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("**Bold**, *slanted*, `code` and ~~gone~~", "Bold, slanted, code and gone"),
        ("## A title\n\nText", "A title. Text"),
        ("- one\n* two\n+ three!", "one. two. three!"),
        ("1. First\n2) Second", "1, First. 2, Second"),
        ("> quoted\n> more", "quoted. more"),
        ("Look:\n```py\nprint(1)\n```\nDone.", "Look: Done."),
        ("Look: ```py\nprint(1)", "Look:"),
        ("See [the docs](https://a.com/x).", "See the docs."),
        ("See https://www.example.com/a/b?c=1, or not", "See example.com, or not"),
        ("![a cat](cat.png)", "a cat"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "a, b, 1, 2,"),
        ("Good 😀👍🏽 morning ❤️", "Good morning"),
        ("snake_case and _slanted_", "snake case and slanted"),
        ("2 * 3", "2×3"),
        ("a\n---\nb", "a. b"),
        ("<b>yes</b>", "yes"),
        ("it is -5 or 3.14, $3.50", "it is -5 or 3.14, $3.50"),
        ("😀", ""),
        ("", ""),
    ],
)
def test_marks_are_not_spoken(written: str, spoken: str) -> None:
    assert speakable(written) == spoken


def test_chinese_lines() -> None:
    assert speakable("## 标题\n- **你好** 😀\n- 世界", "zh") == "标题。你好。世界"


@given(st.text(max_size=200))
def test_anything_can_be_made_speakable(text: str) -> None:
    spoken = speakable(text)
    assert not set("*`|") & set(spoken)
    assert "\n" not in spoken


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Dr. Lee said 3.14. “Why?” Nobody knew.", ["Dr. Lee said 3.14.", "“Why?”", "Nobody knew."]),
        ("J. Smith, e.g. here.", ["J. Smith, e.g. here."]),
        ("你好！真的吗？是。", ["你好！", "真的吗？", "是。"]),
        (
            "This first clause is rather long, this second one is rather long too, and so on.",
            ["This first clause is rather long,", "this second one is rather long too,", "and so on."],
        ),
        (
            "1,000,000 people came at 10:30:15 to see it all",
            ["1,000,000 people came at 10:30:15 to see it all"],
        ),
        ("", []),
    ],
)
def test_it_is_cut_where_a_speaker_pauses(text: str, cut: list[str]) -> None:
    assert pieces(text, 40, 80) == cut


@given(st.text(alphabet='ab ,.;!?。，\n"”1', max_size=300), st.integers(5, 40))
def test_cutting_loses_nothing(text: str, soft: int) -> None:
    found = pieces(text, soft, 2 * soft)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(0 < len(piece) <= 2 * soft for piece in found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Dr. Lee paid $3.50 — “really”!", ["Dr.", "Lee", "paid", "$3.50", "—", "“really”!"]),
        ("他说：“你好，Python。” ok", ["他", "说：", "“你", "好，", "Python。”", "ok"]),
        ("花了¥35.5（笑）！", ["花", "了", "¥35.5（", "笑）！"]),
        ("……你好——再见", ["……你", "好——", "再", "见"]),
    ],
)
def test_words_are_as_they_are_written(text: str, words: list[str]) -> None:
    assert spoken_pieces(text, "zh", 200, 400)[0] == words


def test_each_piece_knows_whose_characters_it_has() -> None:
    text = "See **the** [docs](https://a.com/x) now. 😀 It is `fun`.\n```\ncode\n```\n"
    words, found = spoken_pieces(text, "en", 200, 400)
    assert words == text.split()
    assert [piece.text for piece in found] == ["See the docs now.", "It is fun."]
    for piece, said in zip(found, (["See", "the", "docs", "now."], ["It", "is", "fun."]), strict=True):
        assert ["".join(c for c, o in zip(piece.text, piece.owner, strict=True) if o == i).strip()
                for i in sorted(set(piece.owner))] == said  # fmt: skip
    assert [words[piece.owner[0]] for piece in found] == ["See", "It"]
    assert [piece.until for piece in found] == [4, len(words)]


@given(st.text(max_size=120), st.sampled_from(["en", "zh"]))
def test_no_word_is_lost(text: str, language: str) -> None:
    words, found = spoken_pieces(text, language, 20, 40)
    assert "".join(words) == "".join(text.split())
    owners = [owner for piece in found for owner in piece.owner]
    assert owners == sorted(owners)
    assert all(piece.owner[-1] < piece.until <= len(words) for piece in found)
    assert not found or found[-1].until == len(words)
