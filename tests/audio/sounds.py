"""Sounds to test with, made by rule, and files of them made with FFmpeg."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np


def tone(frequency, seconds, rate, amplitude=0.5):
    """A sine of `frequency` Hz, the same at any rate: float32[seconds * rate]."""
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(
        np.float32
    )


def chirp(seconds, rate, low=200.0, high=3000.0, amplitude=0.4):
    """A rising tone, which looks like itself only at the right place: float32[seconds * rate]."""
    at = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (low * at + (high - low) / (2 * seconds) * at**2)
    return (amplitude * np.sin(phase)).astype(np.float32)


def snr_db(wanted, got):
    """Signal over error in dB; both of one length."""
    assert len(wanted) == len(got)
    return 10 * np.log10(np.sum(wanted**2.0) / max(np.sum((wanted - got) ** 2.0), 1e-30))


def delay(wanted, got):
    """By how many samples `got` lags `wanted`, at the peak of their correlation."""
    size = 1 << (len(wanted) + len(got)).bit_length()
    spectrum = np.fft.rfft(got, size) * np.conj(np.fft.rfft(wanted, size))
    peak = int(np.argmax(np.fft.irfft(spectrum, size)))
    return peak if peak < size // 2 else peak - size


def cut(data, sizes):
    """`data` in pieces of `sizes`, over and over, until it is used up."""
    at = turn = 0
    while at < len(data):
        yield data[at : at + sizes[turn % len(sizes)]]
        at += sizes[turn % len(sizes)]
        turn += 1


def sound_file(container, codec, samples, rate, channels=1, options=None, picture=False):
    """`samples` (float32[n], the same in every channel) as a file; with `picture`, a video too."""
    out = io.BytesIO()
    with av.open(out, "w", format=container, options=options or {}) as file:
        video = file.add_stream("libx264", rate=10) if picture else None
        if video is not None:
            video.width = video.height = 64
            video.pix_fmt = "yuv420p"
        stream = None
        if codec is not None:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
            stream = file.add_stream(codec, rate=rate, layout=layout)
            stream.codec_context.options = {"strict": "-2"}  # FFmpeg's own Vorbis encoder asks for it
        if video is not None:
            for shade in range(20):
                frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), shade, np.uint8), format="rgb24")
                file.mux(video.encode(frame))
            file.mux(video.encode(None))
        if stream is not None:
            for at in range(0, len(samples), rate):
                planes = np.ascontiguousarray(
                    np.repeat(samples[np.newaxis, at : at + rate], channels, axis=0)
                )
                frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
                frame.sample_rate = rate
                frame.pts = at
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    return out.getvalue()


class Counted(io.BytesIO):
    """A file that knows how much of it was read."""

    taken = 0

    def read(self, size=-1):
        data = super().read(size)
        self.taken += len(data)
        return data


def memory_kb(which):
    """This process's memory, from the system: "VmRSS" now, "VmHWM" the most it ever was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which))
