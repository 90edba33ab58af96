"""A real PostgreSQL in a folder of its own on a loopback port, and databases in it."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

LONGEST = "1800"  # seconds: it ends by itself, should nobody stop it
QUICK = ("fsync=off", "full_page_writes=off", "max_wal_size=256MB", "shared_buffers=32MB", "max_connections=60")
_numbers = count()


@contextmanager
def running() -> Iterator[str]:
    """The URL of a database in a new server, with a password in it; the server is stopped at the end."""
    folder = Path(tempfile.mkdtemp(prefix="fedstep-postgresql-"))
    user = "postgres" if os.getuid() == 0 else None  # PostgreSQL does not run as root
    try:
        if user:
            shutil.chown(folder, user)
        password, port = secrets.token_hex(8), _free_port()
        _initialise(folder, password, user)
        settings = (f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", *QUICK)
        words = [word for setting in settings for word in ("-c", setting)]
        command = ["timeout", "-s", "INT", LONGEST, program("postgres"), "-D", str(folder / "cluster"), *words]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, user=user, stdout=log, stderr=log, cwd=folder)
        try:
            url = f"postgresql://fedstep:{password}@127.0.0.1:{port}/postgres"
            _wait_for(url, folder / "log")
            yield url
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)
    finally:
        shutil.rmtree(folder)


def new_database(url: str) -> str:
    """The URL of another, empty database in the same server."""
    name = f"fedstep_{next(_numbers)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{url.rpartition('/')[0]}/{name}"


def program(name: str) -> str:
    """The path of one of PostgreSQL's programs; Debian keeps them off the PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(installed[-1]) if installed else "")
    assert found, f"{name} is not installed: run `make tools`"
    return found


def _initialise(folder: Path, password: str, user: str | None) -> None:
    (folder / "password").write_text(password)
    (folder / "password").chmod(0o644)  # of a folder that only its owner enters
    words = ("-D", str(folder / "cluster"), "-U", "fedstep", "-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "-N")
    command = [program("initdb"), *words, f"--pwfile={folder / 'password'}"]
    done = subprocess.run(command, user=user, cwd=folder, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return int(door.getsockname()[1])


def _wait_for(url: str, log: Path) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
