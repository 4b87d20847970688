"""The Chinese voice: what it says is heard again by a recogniser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from speech_helpers import (
    CountingWorkers,
    characters,
    edits,
    hear,
    joined,
    loudness,
    say,
    silence_around,
    timed,
    until,
    words,
)

from app.engines.kokoro import KokoroVoice
from app.engines.whisper import Whisper
from app.roles import EngineFailed, Job, NotFound, SpeechOptions

SENTENCES = (
    "你好，我是你的语音助手。",
    "请问附近有没有好吃的餐厅？",
    "我每天早上七点起床，然后喝一杯咖啡。",
    "明天下午三点我们在办公室开会。",
    "请把窗户关上，外面太冷了。",
    "你可以帮我订一张去上海的火车票吗？",
)


@pytest.fixture(scope="module")
def workers() -> Iterator[CountingWorkers]:
    pool = CountingWorkers(1)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def voice(model_dir: Callable[[str], Path], workers: CountingWorkers) -> KokoroVoice:
    return KokoroVoice(model_dir("kokoro-82m"), workers, threads=2)


@pytest.fixture(scope="module")
def recogniser(model_dir: Callable[[str], Path], workers: CountingWorkers) -> Whisper:
    return Whisper(model_dir("whisper-base"), workers, threads=2)


async def test_what_it_says_is_understood(voice: KokoroVoice, recogniser: Whisper) -> None:
    wrong = total = 0
    for sentence in SENTENCES:
        heard = await hear(recogniser, await say(voice, sentence), "zh")
        wrong += edits(characters(sentence), characters(heard))
        total += len(characters(sentence))
    assert wrong / total <= 0.15


async def test_english_words_in_chinese(voice: KokoroVoice, recogniser: Whisper) -> None:
    heard = await hear(recogniser, await say(voice, "我喜欢听 Taylor Swift 的歌，请打开 Google 网站。"), "zh")
    assert "swift" in heard.lower()
    assert "google" in heard.lower()
    assert "网站" in heard


async def test_english_alone(voice: KokoroVoice, recogniser: Whisper) -> None:
    heard = await hear(recogniser, await say(voice, "Hello, how are you today?"), "en")
    assert edits("hello how are you today".split(" "), words(heard)) <= 1


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("2024年3月5日", "二零二四年三月五日"),
        ("10:30", "十点半"),
        ("50%", "百分之五十"),
        ("¥35.5", "三十五点五元"),
        ("2个苹果", "两个苹果"),
        ("1,000,000人", "一百万人"),
        ("60km/h", "六十千米每小时"),
    ],
)
def test_numbers_are_said(voice: KokoroVoice, written: str, said: str) -> None:
    assert voice._phonemes(written) == voice._phonemes(said)


def test_every_phoneme_is_one_that_the_model_knows(voice: KokoroVoice) -> None:
    text = "".join(SENTENCES) + "我用Python写代码，GPT-4很好用！他说：“是的”……（笑）吃日子思儿女"
    assert set(voice._phonemes(text)) <= set(voice._vocabulary)


async def test_clauses_come_one_by_one(voice: KokoroVoice) -> None:
    chunks = await say(voice, SENTENCES[2])
    assert len(chunks) == 2
    for chunk in chunks:
        assert chunk.samples.dtype == np.float32
        assert np.abs(chunk.samples).max() <= 1.0
        assert -24.0 < loudness(chunk.samples, chunk.sample_rate) < -16.0
        before, after = silence_around(chunk.samples, chunk.sample_rate)
        assert before < 0.06
        assert 0.1 < after < 0.4
    assert silence_around(joined(chunks), voice.sample_rate)[1] > 0.24


@pytest.mark.parametrize("speed", [0.7, 1.0, 1.5])
async def test_every_written_word_has_its_time(voice: KokoroVoice, speed: float) -> None:
    text = "2024年3月5日10:30，花了¥35.5。我用Python写代码 (真的)！😀"
    chunks = await say(voice, text, speed=speed)
    found = timed(chunks)
    assert "".join(w.text for w in found) == "".join(text.split())
    assert [w.text for w in found[:6]] == ["2024", "年", "3", "月", "5", "日"]
    times = [t for w in found for t in (w.start, w.end)]
    assert times == sorted(times)
    assert times[0] >= 0.0
    assert times[-1] <= sum(c.duration for c in chunks)
    year, character = found[0], found[1]
    assert year.end - year.start > 1.2 * (character.end - character.start)


async def test_sound_cut_at_the_end_of_a_word_has_the_words_up_to_it(
    voice: KokoroVoice, recogniser: Whisper
) -> None:
    wrong = total = 0
    for sentence, count in ((SENTENCES[2], 7), (SENTENCES[3], 6), (SENTENCES[5], 8)):
        chunks = await say(voice, sentence)
        cut = until(chunks, timed(chunks)[count - 1].end)
        heard = characters(await hear(recogniser, cut, "zh"))
        wrong += edits(characters(sentence)[:count], heard)
        total += count
    assert wrong / total <= 0.35, "two characters more or fewer would be over it"


async def test_speed(voice: KokoroVoice) -> None:
    slow, fast = [sum(c.duration for c in await say(voice, SENTENCES[3], speed=s)) for s in (0.7, 1.5)]
    assert slow > 1.5 * fast


@pytest.mark.parametrize("text", ["", "。。。", "？！", "😀", "——", "```\nx\n```"])
async def test_nothing_to_say_is_no_sound(voice: KokoroVoice, text: str) -> None:
    assert await say(voice, text) == []


async def test_closing_it_stops_the_work(voice: KokoroVoice, workers: CountingWorkers) -> None:
    before = workers.asked
    speech = voice.speak("".join(SENTENCES), SpeechOptions(language="zh"), Job("test"))
    await anext(speech)
    await speech.aclose()
    assert workers.asked - before == 1
    assert workers.waiting == 0


async def test_an_unknown_voice(voice: KokoroVoice) -> None:
    with pytest.raises(NotFound, match="zh-Kumo_man") as error:
        await say(voice, "你好。", voice="zh-Nobody_man")
    assert error.value.field == "voice"


def test_it_names_itself(voice: KokoroVoice) -> None:
    (kumo,) = voice.voices()
    assert (kumo.name, kumo.language, kumo.gender) == ("zh-Kumo_man", "zh", "man")
    assert kumo.sample_rate == voice.sample_rate == 24_000
    assert voice.info.role == "tts"


async def test_no_model_there(tmp_path: Path, workers: CountingWorkers) -> None:
    with pytest.raises(EngineFailed, match=r"no voice \(\*\.onnx\)"):
        await KokoroVoice.load(tmp_path, workers, threads=1)
