"""Where a turn's time went, as a table."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from app.cli.exchange import Exchange
from app.observability.clock import Stage

_WIDTH = 30

_STAGES = {
    Stage.ENDPOINT: "end of turn noticed",
    Stage.STT_FINAL: "words final",
    Stage.LLM_FIRST_TOKEN: "first word of the reply",
    Stage.FIRST_SEGMENT: "first phrase written",
    Stage.TTS_FIRST_AUDIO: "first sound made",
    Stage.FIRST_AUDIO_SENT: "first sound sent",
}
"""The way to the first sound, in order."""


def waterfall(turn: Exchange, *, blocks: bool = True) -> Table | None:
    """The way from the end of speech to the first sound, stage by stage; None if there was none.
    `blocks`: whether the terminal can show block characters."""
    marks = [(label, turn.latency[stage]) for stage, label in _STAGES.items() if stage in turn.latency]
    if not marks:
        return None
    heard = turn.voice_to_voice_ms
    scale = max([at for _, at in marks] + [heard or 0.0]) / _WIDTH or 1.0
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left", header_style="dim")
    table.add_column("from the end of speech" if Stage.ENDPOINT in turn.latency else "from the typed text")
    table.add_column("took", justify="right")
    table.add_column("at", justify="right")
    table.add_column("", no_wrap=True)
    before = 0.0
    for label, at in marks:
        table.add_row(label, _ms(at - before), _ms(at), Text(_bar(before, at, scale, blocks), "cyan"))
        before = max(before, at)
    if heard is not None:
        bar = Text(_bar(0, heard, scale, blocks), "green")
        table.add_row("voice to voice, measured here", "", _ms(heard), bar, style="bold")
    return table


def _ms(value: float) -> str:
    return f"{value:.0f} ms"


def _bar(begin: float, end: float, scale: float, blocks: bool) -> str:
    first, last = round(max(0.0, begin) / scale), round(max(0.0, end) / scale)
    # A stage that took next to nothing still shows where it was.
    return " " * min(first, _WIDTH - 1) + ("━" if blocks else "=") * max(1, last - first)
