"""What doors that stream transcripts need of events: places in the session's sound, and sound that comes
faster than it is spoken."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import pytest
from scripted import CountingStt, silence, speech
from session_rig import Rig

from app.dialogue import events
from app.roles import Job, Samples, SttOptions, Transcript


class SlowStt(CountingStt):
    """Takes a while, as recognisers do."""

    async def transcribe(self, audio: Samples, options: SttOptions, job: Job) -> Transcript:
        await asyncio.sleep(0.05)
        return await super().transcribe(audio, options, job)


async def test_a_final_says_where_its_words_are(rig: Rig) -> None:
    await rig.hear(silence(2.0), speech(1.0), silence(1.0))
    [final] = await rig.until(events.Final)
    assert isinstance(final, events.Final)
    assert final.start == pytest.approx(2.0 - 0.3, abs=0.05)
    assert final.start + final.words[-1].end == pytest.approx(3.0, abs=0.2)
    [stopped] = rig.all(events.SpeechStopped)
    assert isinstance(stopped, events.SpeechStopped) and not stopped.forced
    assert rig.session.listened_s == pytest.approx(4.0, abs=0.05)


async def test_a_stop_that_a_client_asked_for_says_so(rig: Rig) -> None:
    await rig.hear(speech(1.0))
    rig.session.commit()
    [stopped] = await rig.until(events.SpeechStopped)
    assert isinstance(stopped, events.SpeechStopped) and stopped.forced


async def test_no_utterance_begins_in_the_one_before_it(rig: Rig) -> None:
    """The pre-roll of what is said right after a commit would be what was committed."""
    await rig.hear(silence(1.0), speech(1.0))
    rig.session.commit()
    await rig.hear(speech(1.0), silence(1.0))
    one, two = await rig.until(events.Final, 2)
    assert isinstance(one, events.Final) and isinstance(two, events.Final)
    assert one.start == pytest.approx(0.7, abs=0.05)
    assert two.start == pytest.approx(2.0, abs=0.05)


async def test_chunks_stay_short_however_fast_sound_comes() -> None:
    stt = SlowStt(" ".join(str(n) for n in range(400)))
    rig = Rig()
    rig.roles = replace(rig.roles, stt=stt, stt_partial=stt)
    try:
        await rig.hear(speech(70.0), silence(1.0))
        [final] = await rig.until(events.Final)
        assert isinstance(final, events.Final)
        assert max(stt.calls) <= 28 * 16000
        # What is closed by and by is the beginning of the whole.
        partials = [e for e in rig.all(events.Partial) if isinstance(e, events.Partial)]
        for earlier, later in itertools.pairwise([*(p.closed for p in partials), final.words]):
            assert later[: len(earlier)] == earlier
        assert len({len(p.closed) for p in partials}) >= 3
        assert all(p.heard_to <= 71 for p in partials)
    finally:
        await rig.session.close()
