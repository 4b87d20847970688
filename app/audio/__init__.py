"""Sound at the doors: bytes in, 16 kHz mono float32 out, and back.

`codecs` for packets on a wire, `files` for whole recordings, `wav` to write one, `buffer` to
keep an utterance, `level` to measure it.
"""
