"""Chinese text to the phonemes of Kokoro (IPA with arrows for the tones).

`misaki` (Apache-2.0) says numbers, dates, times and units as words and turns pinyin into the
phonemes that the model was trained on; `jieba` parts words and `pypinyin` reads them. English
words in between are read by `english`, in Kokoro's notation for English.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import lru_cache

from app.engines.english import english_phonemes

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
_MARKS = str.maketrans("，、。．！？；：…", ",,..!?;:.")

_TO_KOKORO = (
    ("eɪ", "A"), ("aɪ", "I"), ("oʊ", "O"), ("aʊ", "W"), ("ɔɪ", "Y"), ("dʒ", "ʤ"), ("tʃ", "ʧ"),
    ("ɐ", "ə"), ("ɚ", "əɹ"), ("ɜː", "ɜɹ"), ("n̩", "ᵊn"), ("ɾ", "T"), ("r", "ɹ"), ("ɹɹ", "ɹ"), ("ː", ""),
)  # fmt: skip
"""From espeak's notation to the one that Kokoro's English was trained on."""


class ChinesePhonemes:
    """A callable: text → phonemes with punctuation. Loading blocks for about a second."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # jieba's source has invalid escapes and asks for pkg_resources: both only warn.
            warnings.simplefilter("ignore")
            import jieba
            from misaki.zh import ZHG2P
            from misaki.zh_normalization.num import verbalize_cardinal
            from misaki.zh_normalization.text_normalization import TextNormalizer

            self._jieba = jieba.Tokenizer()
            # What its `initialize` does, without the cache file that it shares through /tmp.
            self._jieba.FREQ, self._jieba.total = self._jieba.gen_pfdict(self._jieba.get_dict_file())
            self._jieba.initialized = True
        self._cardinal: Callable[[str], str] = verbalize_cardinal
        self._normalize: Callable[[str], str] = TextNormalizer().normalize_sentence
        self._read: Callable[[str], str] = lru_cache(maxsize=8192)(ZHG2P.word2ipa)

    def __call__(self, text: str) -> str:
        """Phonemes of `text`; empty when there is nothing to say."""
        for pattern, said in _BEFORE:
            text = pattern.sub(said, text)
        # Without its commas a long number would be read digit by digit, like a telephone's.
        text = _GROUPED.sub(lambda m: self._cardinal(m[0].replace(",", "")), text)
        out: list[str] = []
        at = 0
        for match in _ENGLISH.finditer(text):
            out += [self._chinese(text[at : match.start()]), _english(match[0])]
            at = match.end()
        out.append(self._chinese(text[at:]))
        joined = re.sub(r"\s+(?=[,.!?;:])", "", " ".join(part for part in out if part))
        return joined if joined.strip(" ,.!?;:") else ""

    def _chinese(self, text: str) -> str:
        if not text.strip():
            return ""
        parts: list[str] = []
        for run in _HAN.findall(self._normalize(text)):
            if "\u4e00" <= run[0] <= "\u9fff":
                parts.append(" ".join(self._read(word) for word in self._jieba.lcut(run)))
            else:
                parts.append(re.sub(r"([,.!?;:])(?=\S|$)", r"\1 ", run.translate(_MARKS)))
        # A mark under the vowel of "shi" that Kokoro does not know.
        return "".join(parts).replace("\u032f", "").strip()


def _english(text: str) -> str:
    phonemes = english_phonemes()(text)
    for theirs, ours in _TO_KOKORO:
        phonemes = phonemes.replace(theirs, ours)
    return phonemes
