"""A session of the core that only listens, for one connection."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from app.api.context import Context
from app.dialogue.config import SessionConfig, TurnConfig
from app.dialogue.session import Session
from app.dialogue.turn import Turn
from app.roles import Busy

_CALM_S = 4.0
_LOOK_S = 0.1


def listening(context: Context, language: str | None) -> SessionConfig:
    """A session that writes down what is said, and answers nothing."""
    return replace(
        context.default_config(),
        language=language,
        respond="never",
        speak=False,
        turn=TurnConfig(echo=False, speculations=0),
    )


async def open_session(context: Context, owner: str, config: SessionConfig, connection: object) -> Session:
    """A session with a place: `Busy` if there is none. Only until a moment of overload is over it waits."""

    async def forget(session: Session, turn: Turn) -> None:
        """What is said here is kept in the diary."""

    session = context.sessions.create(
        owner,
        lambda id_: Session(id_, config, roles=context.runtime.roles, on_turn=forget, on_event=context.count),
    )
    context.sessions.attach(session.id, owner, connection)
    try:
        for _ in range(int(_CALM_S / _LOOK_S) if context.runtime.overloaded() else 0):
            if not context.sessions.position(session.id):
                break
            await asyncio.sleep(_LOOK_S)
    except BaseException:
        context.sessions.release(session.id)
        raise
    if context.sessions.position(session.id):
        context.sessions.release(session.id)
        raise Busy("all places are taken, try again later", retry_after=context.sessions.retry_after())
    return session
