from __future__ import annotations

import pytest

from corpus import cer, normalise, wer


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Press 7, to delete this message.", "press seven to delete this message"),
        ("It's an ill-disposed man…", "its an ill disposed man"),
        ("two nine three four zero", "293-4-0"),
        ("thirty three four six ninety two", "33, 4, 6, 92"),
        ("one hundred and five", "105"),
        ("two thousand five hundred", "2,500"),
        ("one hundred thousand", "100000"),
        ("nineteen", "19"),
        ("six oh one", "601"),
        ("six oh oh one", "6001"),
        ("three point one four", "3.14"),
        ("Mr. Lee", "Mister Lee"),
        ("你好，世界。", "你好世界"),
        ("Ｈｅｌｌｏ", "hello"),
    ],
)
def test_the_same_words(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)
    assert wer(one, other) == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("four", "for"),
        ("two", "too"),
        ("twenty one", "20 and 1"),
        ("oh no", "zero no"),
        ("thousand", "1000"),
        ("I can", "I can't"),
    ],
)
def test_other_words(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


def test_rates() -> None:
    assert wer("a b c d", "a x c") == 0.5
    assert wer("a", "a b c") == 2.0
    assert wer(["a b c d", "e f"], ["a b c d", ""]) == pytest.approx(2 / 6)
    assert wer("", "") == 0
    assert wer("", "you") == 1
    assert cer("你好世界", "你好时间") == 0.5
    assert cer("ab c", "abc") == 0
    with pytest.raises(ValueError, match="zip"):
        wer(["a", "b"], ["a"])
