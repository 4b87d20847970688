"""How a talk is shown: live in a terminal, as lines elsewhere, as JSON for scripts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from app.api.messages import (
    ErrorOut,
    Interrupted,
    Loading,
    Notice,
    ServerMessage,
    SpeechStarted,
    ToolCall,
    ToolResult,
    TranscriptionFinal,
    TranscriptionPartial,
    TurnComplete,
    TurnDropped,
)
from app.cli.exchange import Exchange, Tally
from app.cli.loading import logs_above
from app.cli.waterfall import waterfall
from app.talk import Sound

_NAME = 9
"""Width of the column that says who speaks."""
_LINE = 160


class Screen(Protocol):
    """Where a talk is shown. A context manager: shown while the block runs."""

    def __enter__(self) -> Screen: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, message: ServerMessage, turn: Exchange | None) -> None:
        """Something came; `turn`, what it is about, has it already."""

    def note(self, text: str) -> None:
        """A sentence to the person."""

    def end(self, tally: Tally, saved: str | None) -> None:
        """The talk is over; `saved` is where the reply's sound was put."""


def screen_for(tally: Tally, as_json: bool) -> Screen:
    """The kind that fits what stdout is."""
    if as_json:
        return JsonScreen()
    console = Console(highlight=False)
    return LiveScreen(console, tally) if console.is_terminal else LineScreen(console)


def _told(note: Callable[[str], None], message: ServerMessage, before: str) -> str:
    """Tell what is not about a turn, but not the same thing twice; gives what was told last."""
    match message:
        case Notice() | ErrorOut():
            text = message.message
        case Loading():
            states = [f"{r.role} {r.state} {r.progress:.0%}" for r in message.roles if r.state != "ready"]
            text = f"the server still loads its models: {', '.join(states)}"
        case _:
            return before
    if text != before:
        note(text)
    return text


def _called(call: ToolCall) -> str:
    return f"{call.name} {_short(call.arguments)}"


def _given(result: ToolResult) -> str:
    return f"{'' if result.ok else 'failed: '}{_short(result.text)} ({result.ms:.0f} ms)"


def _short(text: str) -> str:
    """On one line, and not all of what is long."""
    line = " ".join(text.split())
    return line if len(line) <= _LINE else f"{line[: _LINE - 1]}…"


def _turn_over(console: Console, turn: Exchange) -> None:
    """What stays on the screen below a turn."""
    if turn.failure:
        console.print(Text(f"failed: {turn.failure}", "red"))
    blocks = console.encoding.lower().startswith("utf")
    if (table := waterfall(turn, blocks=blocks)) is not None:
        console.print()
        console.print(table)
        console.print()


class LiveScreen:
    """The turn that goes on is redrawn in place; turns that are over stay above it."""

    def __init__(self, console: Console, tally: Tally) -> None:
        self._console = console
        self._tally = tally
        self._spinner = Spinner("dots")
        self._stack = ExitStack()
        self._turn: Exchange | None = None
        self._told = ""
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=12, transient=True)

    def __enter__(self) -> LiveScreen:
        self._stack.enter_context(self._live)
        self._stack.enter_context(logs_above())
        return self

    def __exit__(self, *_: object) -> None:
        self._turn = None
        self._stack.close()

    def _render(self) -> RenderableType:
        self._spinner.text = Text(self._tally.state, "dim")
        turn = self._turn
        lines: list[RenderableType] = [] if turn is None else self._lines(turn)
        return Group(*lines, self._spinner)

    def _lines(self, turn: Exchange) -> list[RenderableType]:
        lines: list[RenderableType] = []
        if turn.firm or turn.soft:
            who = f"{'you':<{_NAME}}", "bold cyan"
            lines.append(Text.assemble(who, turn.firm, (turn.soft, "dim italic")))
        if turn.reply:
            cut = (" [interrupted]", "yellow") if turn.interrupted else ""
            who = f"{'colloquy':<{_NAME}}", "bold green"
            lines.append(Text.assemble(who, turn.reply, cut))
        return lines

    def show(self, message: ServerMessage, turn: Exchange | None) -> None:
        match message:
            case TurnComplete() if turn is not None:
                for line in self._lines(turn):
                    self._console.print(line)
                _turn_over(self._console, turn)
            case TurnDropped():
                self.note(f"({message.reason})")
            case ToolCall():
                self.note(f"calls {_called(message)}")
            case ToolResult():
                self.note(_given(message))
        if turn is not None:
            if turn.open:
                self._turn = turn
            elif self._turn is turn:
                self._turn = None
        else:
            self._told = _told(self.note, message, self._told)

    def note(self, text: str) -> None:
        self._console.print(Text(text, "yellow"))

    def end(self, tally: Tally, saved: str | None) -> None:
        if saved:
            self._console.print(f"The reply is in [bold]{saved}[/]")


class LineScreen:
    """One line an event, with the seconds since the talk began; soft words are in brackets."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._told = ""

    def __enter__(self) -> LineScreen:
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _line(self, what: str, text: str) -> None:
        line = f"{time.monotonic() - self._began:7.2f} s  {what:<10} {text}".rstrip()
        self._console.print(Text(line), soft_wrap=True)

    def show(self, message: ServerMessage, turn: Exchange | None) -> None:
        match message:
            case SpeechStarted():
                self._line("hearing", "")
            case TranscriptionPartial() if turn is not None:
                soft = turn.soft.strip()
                self._line("words", f"{turn.firm} [{soft}]".lstrip() if soft else turn.firm)
            case TranscriptionFinal() if turn is not None:
                self._line("you said", turn.said + (" (not sure)" if turn.low_confidence else ""))
            case Sound() if message.text is not None:
                self._line("speaking", message.text)
            case ToolCall():
                self._line("calls", _called(message))
            case ToolResult():
                self._line("gave", _given(message))
            case Interrupted():
                self._line("stopped", message.heard_text)
            case TurnDropped():
                self._line("nothing", message.reason)
            case TurnComplete() if turn is not None:
                self._line("answered", turn.reply + (" [interrupted]" if turn.interrupted else ""))
                _turn_over(self._console, turn)
            case _:
                self._told = _told(self.note, message, self._told)

    def note(self, text: str) -> None:
        self._line("note", text)

    def end(self, tally: Tally, saved: str | None) -> None:
        if saved:
            self._console.print(Text(f"The reply is in {saved}"), soft_wrap=True)


class JsonScreen:
    """One object a line on stdout: the server's events without their sound, each with `at_s`, seconds
    since the talk began; at the end one of type `summary`."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __enter__(self) -> JsonScreen:
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _print(self, line: dict[str, Any]) -> None:
        typer.echo(json.dumps({"at_s": round(time.monotonic() - self._began, 3), **line}, ensure_ascii=False))

    def show(self, message: ServerMessage, turn: Exchange | None) -> None:
        self._print(message.model_dump(mode="json", exclude={"data", "packets"}))

    def note(self, text: str) -> None:
        typer.echo(text, err=True)

    def end(self, tally: Tally, saved: str | None) -> None:
        turns = [turn.summary() for turn in tally if not turn.dropped]
        summary = {"turns": turns, "failure": tally.failure or None, "reply_file": saved}
        self._print({"type": "summary", **summary})
