"""`colloquy serve`: starts, says where it is, ends when asked, and explains what stops it."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import pytest
from command import Command
from serving import Server


@contextmanager
def served(colloquy: Command, *arguments: str, **changes: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A started server and its URL."""
    running = colloquy.start("serve", "--port", "0", *arguments, **changes)
    try:
        assert running.stdout is not None
        for line in running.stdout:
            if "listens at" in line:
                yield running, line.split("listens at ")[1].split()[0]
                break
        else:
            raise AssertionError(running.communicate()[1])
    finally:
        running.kill()
        running.communicate()


def test_it_serves_the_page_and_ends_when_told(colloquy: Command) -> None:
    with served(colloquy, "--open") as (running, url):
        assert httpx.get(f"{url}/health").json()["status"] == "healthy"
        assert httpx.get(url).status_code == 200
        assert running.stdout is not None
        assert running.stdout.readline() == "\n"
        assert "no browser to open here" in running.stdout.readline()
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 0
    assert "Traceback" not in err


def test_ctrl_c_ends_it_and_a_second_one_at_once(colloquy: Command) -> None:
    with served(colloquy) as (running, url):
        parts = urlsplit(url)
        # A request that does not come to its end keeps the server from ending.
        with socket.create_connection((parts.hostname, parts.port or 0)) as stuck:
            stuck.sendall(
                b"POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            )
            time.sleep(0.5)
            running.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                running.wait(1.5)
            running.send_signal(signal.SIGINT)
            assert running.wait(20) == 130


def test_a_taken_port_is_explained(server: Server, colloquy: Command) -> None:
    port = server.url.rpartition(":")[2]
    done = colloquy("serve", "--port", port)
    assert done.returncode == 1
    assert f"Colloquy already runs at {server.url}" in done.stderr and "--port" in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = colloquy("serve", "--port", str(other.getsockname()[1]))
    assert done.returncode == 1
    assert "another program" in done.stderr and "--port" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "settings", "reason"),
    [
        (["--port", "99999"], {}, "PORT"),
        (["--port", "x"], {}, "--port"),
        ([], {"API_KEYS": "secret-word"}, "api_keys"),
        ([], {"LANGUAGE": "English"}, "LANGUAGE"),
        (["--host", "0.0.0.0"], {}, "API_KEYS"),
        (["--host", "192.0.2.1"], {"API_KEYS": '["k"]'}, "HOST=192.0.2.1"),
        ([], {"DATA_DIR": "/dev/null/x"}, "DATA_DIR"),
    ],
)
def test_wrong_settings_are_one_clear_line(
    colloquy: Command, arguments: list[str], settings: dict[str, str], reason: str
) -> None:
    done = colloquy("serve", *arguments, **settings)
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr and "secret-word" not in done.stderr
    if done.stderr.startswith("colloquy:"):
        assert len(done.stderr.strip().splitlines()) == 1


def test_models_that_are_missing_are_fetched_and_shown(colloquy: Command) -> None:
    """From a folder, as on a machine without the network; only what that lacks is missing."""
    with served(
        colloquy,
        MODELS_DIR=str(colloquy.folder / "models"),
        MODELS_LOCAL=colloquy.settings["MODELS_DIR"],
    ) as (running, url):
        assert httpx.get(f"{url}/health").json()["status"] == "healthy"
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert "Fetching" in err
    assert "piper-joe: 100%" in err
    assert running.returncode == 0
