"""`/health`: state and readiness of each role; `/api/v1/metrics`: Prometheus text."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from app import __version__
from app.api.context import Context, Ctx
from app.api.messages import RoleProgress

router = APIRouter(tags=["health"])


class McpServerState(BaseModel):
    """An MCP server, `connecting`, `ready` or `failed` (it is tried again), and how many tools it offers."""

    name: str
    state: Literal["connecting", "ready", "failed"]
    tools: int
    message: str


class Health(BaseModel):
    """`status` is `healthy` when every role is ready, `loading` before, `degraded` when one failed."""

    status: str
    version: str
    sessions: int
    max_sessions: int
    language: str
    roles: list[RoleProgress]
    mcp_servers: list[McpServerState]


def roles_of(context: Context) -> list[RoleProgress]:
    """Each role's model and how far it is."""
    return [
        RoleProgress(
            role=s.role, model=s.model, state=s.state, progress=round(s.progress, 3), message=s.message
        )
        for s in context.runtime.status.values()
    ]


@router.get("/health")
@router.get("/api/v1/health")
async def health(context: Ctx) -> Health:
    """Always 200 while the process serves; look at `status`."""
    roles = roles_of(context)
    failed = any(r.state == "failed" for r in roles)
    status = "degraded" if failed else "healthy" if context.runtime.ready else "loading"
    return Health(
        status=status,
        version=__version__,
        sessions=len(context.sessions),
        max_sessions=context.settings.max_sessions,
        language=context.settings.language,
        roles=roles,
        mcp_servers=[
            McpServerState(name=s.name, state=s.state, tools=len(s.tools), message=s.message)
            for s in context.tools.servers
        ],
    )


@router.get("/api/v1/metrics")
async def metrics(context: Ctx) -> Response:
    """All metrics in Prometheus' text format."""
    return Response(context.metrics.render(), media_type=context.metrics.content_type)
