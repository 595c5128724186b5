"""Starts servers on loopback, and installs the programs that are missing, without root, into a folder of their own."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

INSTALLED = Path(__file__).resolve().parent.parent / ".nox" / "servers"
# A guard against a server that hangs. On a busy machine, a start takes a minute.
_SECONDS_TO_START = 600


class CannotStartError(Exception):
    """The server is not installed, and cannot be."""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Server:
    """A process that listens on a port of this machine.

    :param command: command with its arguments
    :param port: port that it listens on
    :param options: further arguments of ``subprocess.Popen``
    """

    def __init__(self, command: list[str], port: int, **options: Any) -> None:
        self.port = port
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            command, stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL, start_new_session=True, **options
        )
        deadline = time.monotonic() + _SECONDS_TO_START
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._log.seek(0)
                raise RuntimeError(f"{command[0]} did not start: {self._log.read().decode()[-2000:]}")
            time.sleep(0.1)

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the process and those that it started.

        :param number: signal that ends them
        """
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        self._process.wait()
        self._log.close()


class PostgreSQL:
    """An empty database, as an unprivileged user, because PostgreSQL refuses to run as root.

    :raises CannotStartError: if PostgreSQL is not installed
    """

    def __init__(self) -> None:
        initdb, libraries = debian_program("usr/lib/postgresql/*/bin/initdb", "postgresql")
        user, as_user = unprivileged_user()
        env = {**os.environ, "LD_LIBRARY_PATH": libraries}
        self.port = free_port()
        # This is no folder of Airflow's, which its user could not enter.
        self._folder = Path(tempfile.mkdtemp(prefix="airflow-whatsapp-postgresql-"))
        password = secrets.token_hex(16)
        password_file, data = self._folder / "password", self._folder / "data"
        password_file.write_text(password, encoding="utf-8")
        for path in (self._folder, password_file):
            shutil.chown(path, user)
        subprocess.run(
            [
                *(initdb, "--pgdata", str(data), "--username", "airflow", "--encoding", "UTF8", "--locale", "C"),
                *("--auth", "scram-sha-256", "--pwfile", str(password_file), "--no-sync"),
            ],
            check=True,
            env=env,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            **as_user,
        )
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            # Compiling queries at run time needs a library that is not unpacked.
            "jit": "off",
        }
        self._server = Server(
            [
                *(str(Path(initdb).with_name("postgres")), "-D", str(data), "-p", str(self.port)),
                *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
            ],
            self.port,
            env=env,
            cwd=self._folder,
            **as_user,
        )
        self.address = f"airflow:{password}@127.0.0.1:{self.port}/postgres"

    def stop(self) -> None:
        """End the server and delete the database."""
        self._server.stop(signal.SIGINT)
        shutil.rmtree(self._folder)

    def holds(self, text: bytes) -> list[str]:
        """Return the files of the database, its write-ahead log included, that contain a text."""
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        return [str(path.relative_to(self._folder)) for path in files if text in path.read_bytes()]


class Redis:
    """An empty Redis that keeps everything in memory.

    :raises CannotStartError: if Redis is not installed
    """

    def __init__(self) -> None:
        program, libraries = debian_program("usr/bin/redis-server", "redis-server")
        port, password = free_port(), secrets.token_hex(16)
        self._folder = Path(tempfile.mkdtemp(prefix="airflow-whatsapp-redis-"))
        # In its arguments, every user of the machine could read the password.
        config = self._folder / "redis.conf"
        config.write_text(
            f'bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave ""\nappendonly no\n', encoding="utf-8"
        )
        self._server = Server(
            [program, str(config)], port, env={**os.environ, "LD_LIBRARY_PATH": libraries}, cwd=self._folder
        )
        self.url = f"redis://:{password}@127.0.0.1:{port}/0"

    def stop(self) -> None:
        """End the server."""
        self._server.stop()
        shutil.rmtree(self._folder)


def unprivileged_user() -> tuple[str, dict[str, Any]]:
    """Return a user that is not root, and the arguments of ``subprocess.Popen`` that start a process as that user."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name, {}
    return "nobody", {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}


def npm_program(name: str, package: str) -> str:
    """Return the path of a program that npm installs, and install it if needed.

    :param name: name of the program, e.g. ``"prism"``
    :param package: package with its version, e.g. ``"@stoplight/prism-cli@5.14.2"``
    :raises CannotStartError: if it cannot be installed
    """
    folder = INSTALLED / package.replace("/", "-")
    program = folder / "node_modules" / ".bin" / name
    if not program.exists():
        npm = shutil.which("npm")
        if npm is None or subprocess.run([npm, "install", "--silent", "--prefix", str(folder), package]).returncode:
            raise CannotStartError(f"npm cannot install {package}")
    return str(program)


def debian_program(pattern: str, package: str) -> tuple[str, str]:
    """Return the path of a program, and the value of ``LD_LIBRARY_PATH`` with which it runs.

    If it is not installed, the files of Debian's package are unpacked. This needs no root, and starts nothing.

    :param pattern: glob pattern of the path, without the leading slash
    :param package: the package of Debian that has the program or depends on the package that has it
    :raises CannotStartError: if it is not installed and cannot be unpacked
    """
    folder = INSTALLED / package
    for root in (Path("/"), folder):
        if root == folder and not folder.exists():
            _unpack(package, folder)
        for program in sorted(root.glob(pattern), reverse=True):
            libraries = [] if root == Path("/") else folder.glob("usr/lib/*-linux-gnu*")
            return str(program), os.pathsep.join(map(str, libraries))
    raise CannotStartError(f"{package} is not installed")


def _unpack(package: str, folder: Path) -> None:
    """Unpack a package with its parts and the libraries that these need."""
    if not shutil.which("apt-get"):
        return
    # The package `postgresql` is empty and depends on `postgresql-15`, and `redis-server` on `redis-tools`.
    parts = [name for name in _depends_on(package) if name.startswith(package.partition("-")[0])]
    # Every Debian has the libraries of C and C++, and the one of LLVM is large and not needed.
    libraries = {name for name in _depends_on(package, *parts) if re.match("lib(?!c6|gcc|stdc|llvm)", name)}
    with tempfile.TemporaryDirectory() as downloads:
        subprocess.run(["apt-get", "download", "-q", package, *parts, *sorted(libraries)], cwd=downloads)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for file in Path(downloads).glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(file), str(folder)], check=True)


def _depends_on(*packages: str) -> list[str]:
    printed = subprocess.run(["apt-cache", "depends", *packages], capture_output=True, text=True).stdout
    return re.findall(r"^ +Depends: (\S+)", printed, re.MULTILINE)
