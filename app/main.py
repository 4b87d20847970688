"""The web application: routes and lifespan, nothing else."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from app import __version__
from app.api import errors, health, hosted, rest, sessions, socket, tokens, users
from app.api import objects as recordings
from app.api.context import Context
from app.api.deepgram import listen, prerecorded
from app.api.erasing import finish as finish_erasing
from app.api.known import KnownVoices
from app.api.openai import chat, embeddings, models, speech, transcriptions
from app.api.openai import errors as openai_errors
from app.api.openai.realtime import socket as realtime
from app.api.wearable import notes as wearable_notes
from app.api.wearable import profiles as wearable_profiles
from app.api.wearable import rest as wearable_rest
from app.api.wearable import socket as wearable
from app.api.wearable.conversations import Conversations
from app.dialogue.manager import SessionManager
from app.dialogue.selfcheck import self_check
from app.insights.meaning import Meaning
from app.insights.memories import Memories
from app.insights.reader import Reader
from app.insights.structurer import Structurer
from app.roles import ChatMessage, ColloquyError, Job
from app.runtime import Runtime, database_url, rules, s3_access
from app.security.access import Access, load_secret
from app.security.links import Links
from app.settings import Settings
from app.stores.crypt import UserKeys, load_master_keys
from app.stores.keeper import Keeper
from app.stores.landing import landings
from app.stores.objects import open_objects
from app.stores.retention import Sweeper
from app.stores.sealed import SealedConversations
from app.stores.sealed_diary import SealedDiary
from app.stores.shared import SharedSessions
from app.stores.spool import Spool
from app.stores.sql import open_conversations
from app.stores.sql_diary import SqlDiary
from app.stores.sql_keys import SqlKeys
from app.stores.sql_owned import SqlOwned
from app.stores.sql_recordings import SqlRecordings
from app.stores.vault import Vault
from app.tools.toolbox import open_toolbox

log = logging.getLogger(__name__)

_HERE = Path(__file__).parent
WEB = next((p for p in (_HERE / "web", _HERE.parent / "web") if (p / "index.html").is_file()), None)
"""The page: inside an installed package, beside `app` in a checkout."""

_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Models load in the background once it starts; raises `Misconfigured`
    for settings that would let strangers in."""
    settings = settings or Settings()
    given = settings.session_secret
    secret = given.get_secret_value().encode() if given else load_secret(settings.data_dir / "secret")
    access = Access(settings, secret)
    given_keys = [key.get_secret_value() for key in settings.master_keys]
    master = load_master_keys(given_keys, settings.master_key_file)
    runtime = Runtime(settings)
    tools = open_toolbox(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        objects = await open_objects(settings.objects_url, s3_access(settings))
        database = await open_conversations(database_url(settings))
        keys = UserKeys(master, SqlKeys(database.engine))
        await keys.check()
        conversations = SealedConversations(database, keys)
        diary = SealedDiary(SqlDiary(database.engine), keys)
        meaning = Meaning(lambda: runtime.on_demand("embedding"))
        reader = Reader(lambda: runtime.role("llm"))
        count = runtime.metrics.insights_total
        days = Conversations(
            diary, Structurer(diary, reader, meaning, lambda outcome: count.labels(outcome).inc())
        )
        vault = Vault(objects, keys)
        spool = Spool(settings.data_dir / "spool", master.derived("spool"), int(settings.spool_max_mb * 1e6))
        keeper = Keeper(spool, landings(conversations, vault, diary), runtime.metrics)
        sweeper = Sweeper(SqlRecordings(database.engine), vault, rules(settings), runtime.metrics)
        shared = None
        if settings.shared_state_url is not None:
            url = settings.shared_state_url.get_secret_value()
            shared = SharedSessions(url, uuid4().hex, settings.session_keep_s)
        context = Context(
            settings=settings,
            runtime=runtime,
            metrics=runtime.metrics,
            access=access,
            links=Links(secret),
            sessions=SessionManager(
                settings.max_sessions,
                settings.session_keep_s,
                max_waiting=settings.max_waiting,
                may_admit=runtime.overloaded,
                on_count=runtime.metrics.active_sessions_count.set,
                on_end=lambda session: context.ended(session),
            ),
            conversations=conversations,
            objects=objects,
            keys=keys,
            vault=vault,
            owned=SqlOwned(database.engine),
            keeper=keeper,
            diary=diary,
            days=days,
            memories=Memories(diary, meaning),
            known=KnownVoices(
                diary,
                vault,
                vad=lambda: runtime.role("vad"),
                voices=lambda: runtime.on_demand("speaker"),
                speakers=runtime.new_speakers,
            ),
            tools=tools,
            shared=shared,
        )
        app.state.context = context
        await keeper.start()
        await finish_erasing(context)
        runtime.start()
        days.start()
        sweeper.start()
        tools.start()
        checking = asyncio.create_task(_check(context))
        try:
            yield
        finally:
            checking.cancel()
            await asyncio.wait([checking])
            gc.unfreeze()
            await sweeper.close()
            # Sessions first: they still hand their last turns to the keeper.
            await context.sessions.close()
            await days.close()
            await tools.close()
            if shared is not None:
                await shared.close()
            await runtime.close()
            await keeper.close()
            await objects.close()
            await conversations.close()

    # No page of FastAPI's own: those load scripts from elsewhere. The description stays.
    app = FastAPI(title="Colloquy", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )
    errors.install(app)
    for module in (
        health,
        sessions,
        recordings,
        tokens,
        users,
        rest,
        socket,
        embeddings,
        transcriptions,
        speech,
        realtime,
        listen,
        prerecorded,
        chat,
        models,
        hosted,
        wearable,
        wearable_rest,
        wearable_profiles,
        wearable_notes,
        openai_errors,  # last: it answers for what is not there
    ):
        app.include_router(module.router)
    if WEB is not None:
        page = WEB / "index.html"

        @app.get("/", include_in_schema=False)
        async def index() -> FileResponse:
            return FileResponse(page, headers={"Cache-Control": "no-cache", **_PAGE_HEADERS})

        app.mount("/web", StaticFiles(directory=WEB), name="web")
    return app


async def _check(context: Context) -> None:
    """Once all models are there, see that they work together."""
    try:
        roles = await context.runtime.roles()
        # What was loaded stays. Looking through it for garbage would hold up everybody for 0.1 s each time.
        gc.collect()
        gc.freeze()
        config = context.default_config()
        result = await self_check(roles, config.language)
        await roles.llm.prepare([ChatMessage("system", config.instructions)], Job("self-check"))
    except ColloquyError as error:
        log.warning("the self-check did not pass: %s", error.message)
        return
    context.metrics.asr_cer_percent.set(result.cer)
    context.metrics.asr_vad_accuracy_percent.set(result.vad_accuracy)
    log.info(
        "ready to talk",
        extra={"self_check_cer_percent": result.cer, "vad_accuracy_percent": result.vad_accuracy},
    )
