"""Chinese text to the phonemes of Kokoro (IPA with arrows for the tones).

`misaki` (Apache-2.0) says numbers, dates, times and units as words and turns pinyin into the
phonemes that the model was trained on; `jieba` parts words and `pypinyin` reads them. English
words in between are read by `english`, in Kokoro's notation for English.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache

from app.engines.english import english_phonemes
from app.engines.traced import Traced

_ENGLISH = re.compile(r"(?<![\dA-Za-z°/])[A-Za-z](?:[A-Za-z'+#&. -]*[A-Za-z+#])?")
"""Latin letters, but not units, which follow a number and are said in Chinese."""
_HAN = re.compile(r"[\u4e00-\u9fff]+|[^\u4e00-\u9fff]+")
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)")

_BEFORE = [
    (re.compile(pattern), said)
    for pattern, said in (
        (r"[¥￥]\s?([\d.]+)", r"\1元"),
        (r"\$\s?([\d.]+)", r"\1美元"),
        (r"€\s?([\d.]+)", r"\1欧元"),
        (r"(?<![\d.第])2(?=[个位只条张本件种台辆杯块家份天次])", "两"),
        (r"\s*[（(]\s*|\s*[）)]\s*(?=\w)|——?|\s+[-–]\s+", "，"),
        (r"(?<=[A-Za-z\d])\.(?=[A-Za-z])", "点"),
        (r"(?<=[A-Za-z])-(?=\d)", " "),
    )
]
_MARK = re.compile(r"([,.!?;:])(?=\S|$)")
_BEFORE_MARK = re.compile(r"\s+(?=[,.!?;:])")
# And a mark under the vowel of "shi" that Kokoro does not know.
_AROUND = re.compile("\u032f|\\A\\s+|\\s+\\Z")
_MARKS = str.maketrans("，、。．！？；：…", ",,..!?;:.")

_TO_KOKORO = [
    (re.compile(theirs), ours)
    for theirs, ours in (
        ("eɪ", "A"), ("aɪ", "I"), ("oʊ", "O"), ("aʊ", "W"), ("ɔɪ", "Y"), ("dʒ", "ʤ"), ("tʃ", "ʧ"),
        ("ɐ", "ə"), ("ɚ", "əɹ"), ("ɜː", "ɜɹ"), ("n̩", "ᵊn"), ("ɾ", "T"), ("r", "ɹ"), ("ɹɹ", "ɹ"), ("ː", ""),
    )
]  # fmt: skip
"""From espeak's notation to the one that Kokoro's English was trained on."""


class ChinesePhonemes:
    """A callable: text → phonemes with punctuation. Loading blocks for about a second."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # jieba's source has invalid escapes and asks for pkg_resources: both only warn.
            warnings.simplefilter("ignore")
            import jieba
            from misaki.zh import ZHG2P, Style, lazy_pinyin
            from misaki.zh_normalization.num import verbalize_cardinal
            from misaki.zh_normalization.text_normalization import TextNormalizer

            self._jieba = jieba.Tokenizer()
            # What its `initialize` does, without the cache file that it shares through /tmp.
            self._jieba.FREQ, self._jieba.total = self._jieba.gen_pfdict(self._jieba.get_dict_file())
            self._jieba.initialized = True
        self._cardinal: Callable[[str], str] = verbalize_cardinal
        self._normalize: Callable[[str], str] = TextNormalizer().normalize_sentence

        def read(word: str) -> tuple[str, ...]:
            pinyin = lazy_pinyin(word, style=Style.TONE3, neutral_tone_with_five=True)
            return tuple(ZHG2P.py2ipa(syllable) for syllable in pinyin)

        self._read: Callable[[str], tuple[str, ...]] = lru_cache(maxsize=8192)(read)

    def __call__(self, text: str) -> str:
        """Phonemes of `text`; empty when there is nothing to say."""
        return self.traced(text).text

    def traced(self, text: str) -> Traced:
        """The same, with the character of `text` that each phoneme belongs to."""
        traced = Traced(text)
        for pattern, said in _BEFORE:
            traced = traced.sub(pattern, said)
        # Without its commas a long number would be read digit by digit, like a telephone's.
        traced = traced.sub(_GROUPED, lambda m: self._cardinal(m[0].replace(",", "")))
        out: list[Traced] = []
        at = 0
        for match in _ENGLISH.finditer(traced.text):
            out += [self._chinese(traced[at : match.start()]), _english(traced[match.start() : match.end()])]
            at = match.end()
        out.append(self._chinese(traced[at:]))
        joined = Traced.join((part for part in out if part.text), " ").sub(_BEFORE_MARK, "")
        return joined if joined.text.strip(" ,.!?;:") else Traced("")

    def _chinese(self, written: Traced) -> Traced:
        if not written.text.strip():
            return Traced("")
        text = written.rewritten(self._normalize(written.text))
        parts: list[Traced] = []
        for match in _HAN.finditer(text.text):
            run = text[match.start() : match.end()]
            if "\u4e00" <= run.text[0] <= "\u9fff":
                parts.append(Traced.join(self._words(run), " "))
            else:
                parts.append(Traced(run.text.translate(_MARKS), run.at).sub(_MARK, r"\1 "))
        return Traced.join(parts).sub(_AROUND, "")

    def _words(self, run: Traced) -> Iterator[Traced]:
        begin = 0
        for word in self._jieba.lcut(run.text):
            syllables = self._read(word)
            # One a character, except that characters without a reading stay together.
            places = [run.at[begin + min(i, len(word) - 1)] for i in range(len(syllables))]
            yield Traced.join(Traced(s, [at] * len(s)) for s, at in zip(syllables, places, strict=True))
            begin += len(word)


def _english(written: Traced) -> Traced:
    phonemes = english_phonemes().traced(written.text)
    phonemes = Traced(phonemes.text, [written.at[i] for i in phonemes.at])
    for theirs, ours in _TO_KOKORO:
        phonemes = phonemes.sub(theirs, ours)
    return phonemes
