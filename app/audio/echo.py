"""Is what the microphone hears our own voice, back from a loudspeaker?

Clients without echo cancellation send the reply back to us: later by an unknown but steady delay, coloured
by loudspeaker and room. What we sent is known, so two things can be learnt while it plays:

* the delay, from the correlation of what is heard with what was sent (generalised cross-correlation,
  Knapp & Carter 1976), found within some 150 ms of echo;
* how much of each frequency band comes back, at once, as reverberation and as distortion, fitted to
  the last seconds by multiplicative updates (Févotte, Bertin & Durrieu 2009, Itakura-Saito divergence).

A frame is ours as long as its bands are about what was predicted. A person who talks over the reply is
louder in some bands than any echo could be, and this excess, summed from frame to frame (CUSUM, Page
1954), tells of them. Nothing is subtracted: the sound itself stays as it was heard.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.audio.resample import Resampler
from app.roles import SAMPLE_RATE, Samples

FRAME = 512
"""Samples a frame, as for the VAD."""
_SILENT = SAMPLE_RATE
"""This long after our last sound nothing of it is left to hear."""
_SAME = int(0.1 * SAMPLE_RATE)
"""Positions are guesses. Sound that should begin within this of the end of the last follows it seamlessly."""
_FLUSH = int(0.1 * SAMPLE_RATE)
"""May still be played after a stop."""
_KEEP = int(1.5 * SAMPLE_RATE)
"""What is kept of what was played: the longest delay and the reverberation."""
_MOST = 60 * SAMPLE_RATE
"""Sent ahead, or with nobody asking: more is not kept."""

_HOP, _WINDOW = FRAME // 2, FRAME
_BANDS, _LOWEST, _HIGHEST = 20, 100.0, 7500.0
_HOPS = 26
"""Hops of sent sound from which a frame is predicted: 0.4 s."""
_TAILS_S = (0.05, 0.15)
"""How fast the two kinds of reverberation fade (to 1/e)."""
_CRACKLE = np.float32(0.002)
"""A band has at least this share of the loudest (-27 dB): distortion grows faster than the fit follows."""
_SHARES = (0.8, 0.1, 0.1, 0.01)
"""First guess at direct sound, reverberations and distortion."""
_MEMORY = 90
"""Frames from which the gains are fitted: 3 s."""
_LEARN = 6
"""Frames after which the gains are good enough to judge by."""
_OUTLIER = 4.0
"""Heard over predicted, in power, beyond which a frame teaches no more."""
_OVER_WEIGHT = 0.1
"""What a frame teaches in which a person seems to talk: little, but a louder volume is learnt in the end."""

_EXCESS_DB, _EXCESS_MAX_DB, _USUAL_DB = 2.0, 12.0, 1.15
"""Each band counts for what it exceeds the prediction by, less 2 dB, up to 12; echo alone rarely makes
that much of it in the mean over the bands."""
_PERSON, _EVIDENCE_MAX = 0.9, 5.0
"""Evidence (dB beyond the usual, summed over frames) that a person talks, and where it stops rising: it
outlasts a pause of some 100 ms."""
_FRESH = 15
"""Frames at the start of a stretch in which the level may be another one (somebody turned the volume):
what all bands exceed the prediction by alike is then no person."""
_FADED = 0.02
"""What earlier stretches still weigh in the fit when a new one begins: enough until there is better."""
_LOUD = 8.0
"""In power over the noise: there is something to hear."""
_PATIENCE = 10
"""Loud frames in the first reply that count as ours before any echo is found."""
_NO_ECHO = 30
"""Frames without a sound while we play: longer than any delay. Then there is no echo, and the first
that is heard is a person."""

Bands = npt.NDArray[np.float32]


class EchoJudge:
    """Whether what the microphone hears is our own voice. One a session, for one thread.

    `sent` and `own_voice` must be called in the order of time. What is learnt is kept from reply to
    reply. While a reply plays a frame takes 0.15-0.25 ms, and next to nothing when none does.
    """

    def __init__(self) -> None:
        self._played = _Played()
        self._delay = _Delay()
        self._path = _Path()
        self._next = -1
        self._mic: Samples = np.zeros(_BLOCK, np.float32)
        self._noise: Bands | None = None
        self._evidence = 0.0
        self._loud = 0
        self._quiet = 0
        self._frames = 0

    def sent(self, samples: Samples, sample_rate: int, position: int) -> None:
        """The reply's next sound, float32[n] at `sample_rate` Hz. It should reach the loudspeaker at
        microphone sample `position` (16 kHz count of the session's input): a guess that may be off by 60 ms,
        and is early by the delay that is learnt here (up to 0.8 s in all). Positions further than 100 ms
        from the end of what was sent before say that playing ran dry or was stopped in between."""
        if self._played.add(samples, sample_rate, position):
            self._delay.doubt()
            self._path.renew()
            self._loud = 0

    def stopped(self, position: int) -> None:
        """Playing stopped (pause or interruption) at about that microphone position: what was sent
        beyond it will not be heard. After a pause the rest is handed in again with `sent`."""
        self._played.cut(position + _FLUSH)

    def own_voice(self, frame: Samples, position: int) -> float:
        """0-1: how much of this frame (float32[512] at microphone sample `position`) is explained by our own
        sound; 0.5 and more is ours. 0.0 at once when nothing was played within the last second."""
        end = position + FRAME
        if not self._played.audible(position):
            return 0.0
        if self._next != position:
            self._mic = np.zeros(_BLOCK, np.float32)
            self._evidence = 0.0
        self._next = end
        self._mic = np.concatenate([self._mic[FRAME:], frame])
        self._frames += 1
        delay = self._delay
        if not self._mic.any():
            # A device that cuts its own echo sends nothing at all.
            self._quiet += delay.samples is None
            self._evidence = max(self._evidence - _USUAL_DB, 0.0)
            return 0.0
        if self._frames % delay.every == 0 and delay.search(self._mic, self._played, end):
            self._path = _Path()
        heard = _energies(self._mic[-FRAME - _HOP :]).sum(axis=0)
        noise = self._noise_under(heard)
        if delay.samples is None:
            loud = bool(heard.sum() > _LOUD * noise.sum())
            self._loud += loud
            self._quiet += not loud
            if self._loud > _PATIENCE or (loud and self._quiet >= _NO_ECHO):
                delay.absent = True
            return 0.0 if delay.absent else 1.0
        bases = self._path.bases(self._played, end - delay.samples, smeared=delay.doubtful)
        predicted = self._path.predict(bases, heard) + noise
        over = 10 * np.log10(heard / predicted + 1e-9)
        if self._path.fresh < _FRESH:
            over -= max(0.0, float(np.median(over)))
        excess = (over - _EXCESS_DB).clip(0, _EXCESS_MAX_DB).mean()
        learnt = self._path.learnt
        if learnt:
            self._evidence = min(max(self._evidence + float(excess) - _USUAL_DB, 0.0), _EVIDENCE_MAX)
        if not delay.doubtful:
            self._path.learn(bases, heard, noise, _OVER_WEIGHT if self._evidence >= _PERSON else 1.0)
        return 1.0 - min(1.0, self._evidence / (2 * _PERSON)) if learnt else 1.0

    def _noise_under(self, heard: Bands) -> Bands:
        """The steady noise of each band, doubled: the least that is heard, slowly forgotten."""
        floor = np.maximum(heard, np.float32(1e-7))
        self._noise = floor if self._noise is None else np.minimum(floor, self._noise * np.float32(1.01))
        return 2 * self._noise


class _Played:
    """What was sent, at 16 kHz and by microphone position; silence where there is nothing."""

    def __init__(self) -> None:
        self.begin = 0
        """Where the latest stretch of sound begins."""
        self._end = -2 * _SILENT
        self._data: Samples = np.zeros(0, np.float32)  # ends at _end
        self._rate = 0
        self._resampler: Resampler | None = None

    def add(self, samples: Samples, rate: int, position: int) -> bool:
        """Whether a new stretch begins with these samples."""
        fresh = abs(position - self._end) > _SAME
        if fresh:
            self._move_end(position)
            self.begin = position
        if fresh or self._resampler is None or rate != self._rate:
            self._rate, self._resampler = rate, Resampler(rate, SAMPLE_RATE)
        resampled = self._resampler.push(samples)
        self._data = np.concatenate([self._data, resampled])[-_MOST:]
        self._end += len(resampled)
        return fresh

    def cut(self, position: int) -> None:
        """Forget what is beyond `position`."""
        if position < self._end:
            self._move_end(position)
            self._resampler = None

    def audible(self, position: int) -> bool:
        """Whether something may still be heard at `position`. Forgets what cannot."""
        if position - self._end <= _SILENT:
            spent = position - _KEEP - (self._end - len(self._data))
            if spent > SAMPLE_RATE:
                self._data = self._data[spent:].copy()
            return True
        if len(self._data):
            self._data = np.zeros(0, np.float32)
        return False

    def between(self, start: int, end: int) -> Samples:
        """float32[end - start]."""
        first = self._end - len(self._data)
        held = self._data[max(0, start - first) : max(0, end - first)]
        if len(held) == end - start:
            return held
        sound = np.zeros(end - start, np.float32)
        at = min(max(0, first - start), len(sound))
        sound[at : at + len(held)] = held
        return sound

    def _move_end(self, position: int) -> None:
        if position < self._end:
            self._data = self._data[: max(0, len(self._data) - (self._end - position))]
        else:
            gap = min(position - self._end, _KEEP)
            self._data = np.concatenate([self._data[-_KEEP:], np.zeros(gap, np.float32)])
        self._end = position


# --- the delay ---------------------------------------------------------------------------------

_LONGEST = int(0.8 * SAMPLE_RATE)
_BLOCK = 2 * FRAME
"""Samples of the microphone that are compared at a time."""
_SPAN = _LONGEST + _BLOCK
_BINS = slice(int(250 / SAMPLE_RATE * _SPAN), int(3900 / SAMPLE_RATE * _SPAN))
"""Frequencies that any loudspeaker plays. As they end below 4 kHz, every other sample is enough."""
_WHITENING = 0.75
_FADE = 0.75
"""What is left of the earlier blocks' correlation with each new one."""
_NEEDED = 1000
"""Delays (in steps of two samples) that must be possible before a peak among them means anything."""
_CERTAIN, _LIKELY, _AGAIN = 22.0, 13.0, 10.0
"""Peak over RMS that settles the delay at once, the second time, or near where it was (10, as then fewer
delays compete)."""
_NEAR = int(0.1 * SAMPLE_RATE)
_VAIN = 24
"""Searches without a peak after which there is no echo (any more): 1.5-3 s of our voice."""


class _Delay:
    """Finds and follows the delay between what was sent and what is heard."""

    def __init__(self) -> None:
        self.samples: int | None = None
        self.doubtful = False
        """A new stretch began: it may lie some 100 ms beside where it was guessed to be."""
        self.absent = False
        """Our voice was played and did not come back."""
        self._correlation: Bands | None = None
        self._last = 0
        self._vain = 0

    @property
    def every(self) -> int:
        """Frames between two searches."""
        return 2 if self.doubtful or (self.samples is None and not self.absent) else 4

    def doubt(self) -> None:
        """What was sent last may be out of step with what was sent before."""
        self.doubtful = self.samples is not None
        self._correlation = None
        self._vain = 0

    def search(self, mic: Samples, played: _Played, end: int) -> bool:
        """Compare the latest `mic` (float32[1024], up to position `end`) with what was played; whether the
        delay is another one now, so that what was learnt at the old one is void."""
        possible = min(_LONGEST, end - played.begin) // 2
        sound = played.between(end - _SPAN, end)
        if possible < _NEEDED or not sound.any():
            return False
        self._add(mic, sound)
        assert self._correlation is not None
        scores = self._correlation[:possible] / (np.sqrt(np.mean(self._correlation[:possible] ** 2)) + 1e-20)
        found = int(np.argmax(scores))
        peak, needed = scores[found], _LIKELY
        if self.samples is not None:
            low = max(0, (self.samples - _NEAR) // 2)
            around = scores[low : (self.samples + _NEAR) // 2]
            if len(around) and around.max() > max(_AGAIN, 0.7 * peak):
                found = low + int(np.argmax(around))
                peak, needed = scores[found], _AGAIN
        again, self._last = abs(2 * found - self._last) < 16, 2 * found
        if peak > _CERTAIN or (peak > needed and again):
            return self._settle(2 * found)
        self._vain += 1
        if self._vain <= _VAIN:
            return False
        lost = self.samples is not None
        self.samples, self.doubtful, self.absent = None, False, True
        return lost

    def _add(self, mic: Samples, sound: Samples) -> None:
        cross = (np.fft.rfft(mic, _SPAN) * np.conj(np.fft.rfft(sound)))[_BINS]
        whitened = np.zeros(_SPAN // 4 + 1, np.complex128)
        whitened[_BINS] = cross / (np.abs(cross) ** _WHITENING + 1e-9)
        # `sound` begins `_LONGEST` before `mic`, so delays 0 to `_LONGEST` are the last part of the circle.
        correlation = np.fft.irfft(whitened)[_BLOCK // 2 :]
        earlier = 0.0 if self._correlation is None else _FADE * self._correlation
        self._correlation = (earlier + correlation).astype(np.float32)

    def _settle(self, samples: int) -> bool:
        elsewhere = self.samples is not None and abs(samples - self.samples) > _NEAR
        self.samples, self.doubtful, self.absent, self._vain = samples, False, False, 0
        return elsewhere


# --- how loud the echo is ----------------------------------------------------------------------


def _mel_bank() -> Bands:
    """Triangular filters over the bins of one window: float32[257, bands]."""
    lowest, highest = np.log10(1 + _LOWEST / 700), np.log10(1 + _HIGHEST / 700)
    edges = 700 * (10 ** np.linspace(lowest, highest, _BANDS + 2) - 1)
    bins = np.fft.rfftfreq(_WINDOW, 1 / SAMPLE_RATE)[:, np.newaxis]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    bank = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clip(0)
    narrow = ~bank.any(axis=0)  # between two bins: the nearest
    bank[np.abs(bins - centre[narrow]).argmin(axis=0), narrow] = 1
    filters: Bands = bank.astype(np.float32)
    return filters


def _spread() -> Bands:
    """Weights of the hops (oldest first) in direct sound and each reverberation: float32[3, hops]. A
    frame is two hops long, and the delay is known to a few samples."""
    age = np.arange(_HOPS)
    rows = [np.array([0.6, 1.0, 0.4, *[0.0] * (_HOPS - 3)])]
    for fade in _TAILS_S:
        tail = np.exp(-age[:-1] * _HOP / SAMPLE_RATE / fade)
        tail[0] = 0
        tail /= tail.sum()
        rows.append(np.append(tail, 0) + np.append(0, tail))
    return np.array(rows, np.float32)[:, ::-1]


_BANK = _mel_bank()
_SPREAD = _spread()
_TAPER = np.hanning(_WINDOW + 1)[:_WINDOW].astype(np.float32)


def _energies(sound: Samples) -> Bands:
    """float32[hops, bands] of float32[(hops + 1) * 256]."""
    windows = np.lib.stride_tricks.sliding_window_view(sound, _WINDOW)[::_HOP]
    spectrum = np.fft.rfft(windows * _TAPER)
    return ((spectrum.real**2 + spectrum.imag**2) @ _BANK).astype(np.float32)


class _Path:
    """What loudspeaker and room make of each band of what was sent."""

    def __init__(self) -> None:
        self._gains: Bands | None = None  # [4, bands], in power
        self._hops: Bands = np.zeros((0, _BANDS), np.float32)  # of what was sent, up to _hops_end
        self._hops_end = -1
        self._count = 0
        self._taught = 0.0
        self.fresh = 0
        """Frames learnt from since the current stretch of sound began."""
        self._bases = np.zeros((_MEMORY, 4, _BANDS), np.float32)
        self._heard = np.ones((_MEMORY, _BANDS), np.float32)
        self._noise = np.ones((_MEMORY, _BANDS), np.float32)
        self._weight = np.zeros((_MEMORY, 1), np.float32)

    @property
    def learnt(self) -> bool:
        """Whether enough of the echo was heard to predict it."""
        return self._taught > _LEARN

    def renew(self) -> None:
        """A new stretch of sound begins."""
        self.fresh = 0
        self._weight *= _FADED

    def bases(self, played: _Played, end: int, *, smeared: bool) -> Bands:
        """The energies that may come back in the frame that hears what was sent up to `end`: float32[4,
        bands] of direct sound, two reverberations and distortion. `smeared`: the loudest within some 60 ms
        either way."""
        if end == self._hops_end + FRAME and len(self._hops):
            fresh = _energies(played.between(end - FRAME - _HOP, end))
            self._hops = np.concatenate([self._hops[2:], fresh])
        else:
            self._hops = _energies(played.between(end - (_HOPS + 1) * _HOP, end))
        self._hops_end = end
        hops = self._hops
        if smeared:
            around = _energies(played.between(end - 5 * _HOP, end + 4 * _HOP)).max(axis=0)
            hops = np.concatenate([hops[:-2], np.maximum(hops[-2:], around)])
        spread = _SPREAD @ hops
        # A loudspeaker that distorts is heard where nothing was sent, so this counts in all bands alike.
        return np.concatenate([spread, np.full((1, _BANDS), spread[0].mean(), np.float32)])

    def predict(self, bases: Bands, heard: Bands) -> Bands:
        """The echo's energy in each band. The first frame is explained by itself."""
        if self._gains is None:
            total = bases[:-1].sum(axis=0)
            ratio = heard / np.maximum(total, 1e-3 * total.max() + 1e-12)
            self._gains = (np.array(_SHARES)[:, np.newaxis] * ratio).astype(np.float32) + np.float32(1e-6)
        predicted: Bands = (self._gains * bases).sum(axis=0)
        floored: Bands = np.maximum(predicted, _CRACKLE * predicted.max())
        return floored

    def learn(self, bases: Bands, heard: Bands, noise: Bands, weight: float) -> None:
        """Fit the gains a little better to the last frames, of which this is the newest."""
        if bases.sum() < 1e-4 or self._gains is None:
            return
        at = self._count % _MEMORY
        self._bases[at], self._heard[at], self._noise[at], self._weight[at] = bases, heard, noise, weight
        self._count += 1
        self.fresh += 1
        self._taught += weight
        for _ in range(1 if self._count > 20 else 3):
            known = min(self._count, _MEMORY)
            bases = self._bases[:known]
            predicted = np.einsum("fkb,kb->fb", bases, self._gains) + self._noise[:known]
            ratio = np.minimum(self._heard[:known] / predicted, _OUTLIER)
            per = self._weight[:known] / predicted
            more = np.einsum("fkb,fb->kb", bases, per * ratio)
            less = np.einsum("fkb,fb->kb", bases, per)
            self._gains = np.maximum(self._gains * np.sqrt((more + 1e-9) / (less + 1e-9)), np.float32(1e-9))
