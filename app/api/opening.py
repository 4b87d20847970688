"""How sessions come to be on this server: made for a client, or taken over from another process."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from app.api.context import Context
from app.api.ears import Ears
from app.api.messages import SessionSettings, TurnDetection
from app.dialogue.config import SessionConfig, TurnConfig, default_instructions
from app.dialogue.handover import Restored, restored
from app.dialogue.session import Session
from app.dialogue.turn import Turn
from app.dialogue.who import Who
from app.roles import BadInput, Busy, NotFound
from app.stores.shared import Unavailable
from app.tools import Caller

log = logging.getLogger(__name__)

_CALM_S = 4.0
_LOOK_S = 0.1


async def open_session(context: Context, owner: str, wish: SessionSettings) -> Session:
    """A new session of `owner`. Raises `BadInput` and `Busy`."""
    config = configured(context, wish)
    session = context.sessions.create(owner, lambda id_: _session(context, id_, owner, config))
    context.ears[session.id] = Ears(wish)
    if context.shared is not None:
        try:
            await context.shared.create(session.id, owner, wish.model_dump(exclude_unset=True))
        except Unavailable as error:
            log.warning("a session is known to this process only: %s", error.message)
    return session


async def open_listener(
    context: Context, owner: str, config: SessionConfig, connection: object, who: Who | None = None
) -> Session:
    """A session that only writes down what is said, with a place, for `connection`; nothing of it is kept
    here. `Busy` if there is no place: only until a moment of overload is over it waits."""

    async def forget(session: Session, turn: Turn, complete: bool) -> None:
        """Doors that want to keep it do so in their own shape."""

    def make(session_id: str) -> Session:
        return Session(
            session_id,
            config,
            roles=context.runtime.roles,
            on_turn=forget,
            on_event=context.count,
            voices=(who or context.who(session_id, owner)).parts,
        )

    session = context.sessions.create(owner, make)
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


async def find_session(context: Context, session_id: str, owner: str, connection: object) -> Session:
    """`owner`'s session, for `connection`: one of this process, or one that another process had.
    Raises `NotFound` or `Unavailable`."""
    try:
        return context.sessions.attach(session_id, owner, connection)
    except NotFound:
        if context.shared is None:
            raise
    kept = await context.shared.claim(session_id, owner)
    at_door = kept.state.get("at_door", {})
    wish = SessionSettings.model_validate(at_door.get("wish", kept.wish))
    session = _session(
        context, session_id, owner, configured(context, wish), restored(kept.state, kept.events, kept.sound)
    )
    ears = context.ears[session_id] = Ears(wish)
    ears.received_messages = at_door.get("messages", 0)
    if session.safe is not None:
        ears.received_ms = session.safe[0]
    log.info("a session was taken over", extra={"session_id": session_id})
    context.sessions.adopt(owner, session)
    return context.sessions.attach(session_id, owner, connection)


def _session(
    context: Context, session_id: str, owner: str, config: SessionConfig, taken: Restored | None = None
) -> Session:
    return Session(
        session_id,
        config,
        roles=context.runtime.roles,
        on_turn=context.keep(owner),
        on_event=context.count,
        on_speculation=context.count_speculation,
        store=context.shared,
        restored=taken,
        on_moved=context.moved,
        who=context.who(session_id, owner).label,
        functions=context.tools.of(Caller(owner, session_id)),
    )


def configured(context: Context, wish: SessionSettings, base: SessionConfig | None = None) -> SessionConfig:
    """`base` (default: the server's) with the fields that `wish` sets. Raises `BadInput` for
    what this server cannot do."""
    config = base or context.default_config()
    given = wish.model_fields_set
    if "language" in given and wish.language is None:
        config = replace(config, language=context.default_config().language)
    elif wish.language is not None:
        if context.settings.english_only and wish.language != "en":
            raise BadInput(
                "this server hears English only: start it with LANGUAGE=auto (or the language) for others",
                field="language",
            )
        language = None if wish.language == "auto" else wish.language
        config = replace(config, language=language)
        if context.settings.llm_system_prompt is None and wish.instructions is None:
            config = replace(config, instructions=default_instructions(language))
    if "vocabulary" in given:
        config = replace(config, vocabulary=tuple(wish.vocabulary))
    if "instructions" in given:
        default = context.settings.llm_system_prompt or default_instructions(config.language)
        config = replace(config, instructions=wish.instructions or default)
    if "voice" in given:
        config = replace(config, voice=wish.voice)
    if "speed" in given:
        config = replace(config, speed=wish.speed)
    if "diarize" in given:
        config = replace(config, diarize=wish.diarize)
    if "turn_detection" in given:
        config = replace(config, turn=_turn(wish.turn_detection, config.turn))
    return config


def _turn(wish: TurnDetection, base: TurnConfig) -> TurnConfig:
    return replace(base, **{name: getattr(wish, name) for name in wish.model_fields_set})
