"""The command line: `colloquy serve | talk | doctor | models | bench`.

Here are the commands and what they take; what they do is in one module each, imported when it is
run, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="colloquy",
    help="A voice backend: hears what people say, answers in text and voice.",
    epilog="Settings are environment variables, or lines of a file .env here, such as PORT=8080.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="The models on this machine: list, fetch, verify.")
app.add_typer(models_app, name="models")
objects_app = typer.Typer(help="Where recordings are kept.", no_args_is_help=True)
app.add_typer(objects_app, name="objects")
keys_app = typer.Typer(help="The keys that seal what is stored.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
db_app = typer.Typer(help="Where everything else is kept.", no_args_is_help=True)
app.add_typer(db_app, name="db")

Language = Annotated[
    str | None, typer.Option(metavar="CODE", help="Language spoken: en, zh, … or auto to detect it.")
]


def main() -> None:
    """Entry point of the `colloquy` command. Exit codes: 0 done, 1 failed, 2 wrong use or settings."""
    for stream in (sys.stdout, sys.stderr):
        # What people say may not fit a terminal's encoding; that is no reason to stop.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        app()
    except Exception as error:
        from app.cli.errors import explained

        if (told := explained(error)) is None:
            raise
        message, code = told
        typer.echo(f"colloquy: {message}", err=True)
        sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        from app import __version__

        typer.echo(f"colloquy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    host: Annotated[
        str | None,
        typer.Option(help="Address; beyond this machine API_KEYS must be set. [127.0.0.1]"),
    ] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 takes a free one. [8710]")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    language: Language = None,
) -> None:
    """Start the server and its page.

    Models that are not on this machine are fetched first. Everything else that can be set is an
    environment variable, such as STT_MODEL_NAME or LLM_BASE_URL; the options win over them.
    Ctrl-C ends it, a second one at once.
    """
    from app.cli.serve import run

    run(host=host, port=port, open_page=open_, language=language)


@app.command()
def talk(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            readable=True,
            help="A recording of somebody speaking, of any common format.",
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="The server. Default: the one on this machine, or one just for now.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Save the reply to this WAV file instead of playing it."),
    ] = None,
    text: Annotated[str | None, typer.Option(help="Say this, typed instead of spoken.")] = None,
    language: Language = None,
    voice: Annotated[str | None, typer.Option(help="A voice of the server.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each event.")] = False,
    api_key: Annotated[
        str | None, typer.Option(envvar="COLLOQUY_API_KEY", help="The server's API key, if it wants one.")
    ] = None,
) -> None:
    """Talk to it: by a recording, a text or the microphone.

    A recording is sent in real time, as if somebody spoke it, and waits where it is answered. Words
    appear as they are heard, firm ones first; then comes the reply, and where its time went. The
    reply is played, or saved as FILE.reply.wav where there is no sound card.
    """
    from app.cli.talk import Wish, run

    raise typer.Exit(run(Wish(file, text, url, out, language, voice, api_key, json)))


@app.command()
def doctor(
    verify: Annotated[bool, typer.Option(help="Read and hash the models again.")] = False,
    speak: Annotated[
        bool, typer.Option(help="Load the models, speak a sentence and transcribe it again.")
    ] = False,
) -> None:
    """Check what is needed on this machine, and say what to do."""
    from app.cli.doctor import run

    raise typer.Exit(run(verify=verify, speak=speak))


@models_app.callback(invoke_without_command=True)
def _models(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        models_list()


@models_app.command("list")
def models_list() -> None:
    """All models, and which are here."""
    from app.cli.models import list_all

    list_all()


@models_app.command("fetch")
def models_fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Default: what the settings need.")
    ] = None,
) -> None:
    """Fetch models, so that the server need not."""
    from app.cli.models import fetch

    fetch(names or [])


@models_app.command("verify")
def models_verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Default: all that are here.")
    ] = None,
) -> None:
    """Read and hash the models again."""
    from app.cli.models import verify

    raise typer.Exit(verify(names or []))


@app.command()
def sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Delete recordings that were kept long enough, and make old ones smaller.

    The server does it every hour; see RAW_RETENTION_DAYS, SYNTHESIZED_RETENTION_DAYS and
    AUDIO_TO_OPUS_AFTER_DAYS.
    """
    from app.cli.objects import sweep

    raise typer.Exit(sweep(dry_run=dry_run))


@objects_app.command("move")
def objects_move(
    to: Annotated[str, typer.Option(metavar="URL", help="s3://BUCKET/PREFIX, or a folder.")],
    from_: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="Default: OBJECT_STORE_URL, or the folder.")
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete them here, once all are there. Stop the server first.")
    ] = False,
) -> None:
    """Copy all recordings to a bucket, or back; each is read again there and compared.

    If it is cut off, run it again: it goes on. The bucket is opened with the settings S3_….
    """
    from app.cli.objects import move

    move(to=to, from_=from_, delete=delete)


@db_app.command("move")
def db_move(
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="postgresql://USER:PASSWORD@HOST/NAME; default: SQLite in DATA_DIR."
        ),
    ] = None,
    from_: Annotated[str | None, typer.Option("--from", metavar="URL", help="Default: DATABASE_URL.")] = None,
) -> None:
    """Copy everything to an empty database; all of it is read again there and compared.

    Stop the server first. If it fails, nothing is there.
    """
    from app.cli.database import move

    move(to=to, from_=from_)


@keys_app.command("new")
def keys_new() -> None:
    """Print a new master key, for MASTER_KEYS or MASTER_KEY_FILE."""
    from app.cli.keys import new

    new()


@keys_app.command("list")
def keys_list() -> None:
    """Which master keys there are, by name, and how many users' keys each seals."""
    from app.cli.keys import list_all

    raise typer.Exit(list_all())


@keys_app.command("rotate")
def keys_rotate() -> None:
    """Seal all users' keys with the first master key.

    The others are not needed any more then. Recordings and texts stay as they are: users' keys
    seal them.
    """
    from app.cli.keys import rotate

    raise typer.Exit(rotate())


@app.command(
    # Also --help goes to the benchmark that is named.
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
)
def bench(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The benchmark; without one they are listed.")
    ] = None,
) -> None:
    """Measure: run a benchmark with its own arguments, or list them. (Needs a checkout.)"""
    if name in ("-h", "--help"):
        typer.echo(context.get_help())
        return
    from app.cli.bench import run

    raise typer.Exit(run(name, context.args))
