"""The servers on loopback that an Airflow with several workers needs: PostgreSQL, Redis and S3.

PostgreSQL and Redis are taken from ``/usr``, or else from the folder in ``SERVICES``, into which the nox session
unpacks Debian's packages.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

# The servers of the stores import their own neighbours.
sys.path.append(str(Path(__file__).parent / "stores"))

from servers import CannotStartError, S3Store, Server, free_port, unprivileged_user

__all__ = ["PostgreSQL", "Redis", "S3Store"]


class PostgreSQL:
    """An empty database, as an unprivileged user, because PostgreSQL refuses to run as root.

    :raises CannotStartError: if PostgreSQL is not installed
    """

    def __init__(self) -> None:
        initdb, libraries = find_program("initdb", "usr/lib/postgresql/*/bin")
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
        subprocess.run(  # noqa: S603  # the program that was found
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
        """The files of the database, its log of changes included, that hold a text."""
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        return [str(path.relative_to(self._folder)) for path in files if text in path.read_bytes()]


class Redis:
    """An empty Redis that keeps everything in memory.

    :raises CannotStartError: if Redis is not installed
    """

    def __init__(self) -> None:
        program, libraries = find_program("redis-server", "usr/bin")
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


def find_program(name: str, folders: str) -> tuple[str, str]:
    """The path of a program, and the folder of the libraries that were unpacked for it.

    :param folders: glob pattern of the folders that Debian puts it in, without the leading slash
    :raises CannotStartError: if it is neither installed nor unpacked
    """
    unpacked = Path(os.environ.get("SERVICES", "/nonexistent"))
    for root in (Path("/"), unpacked):
        for program in sorted(root.glob(f"{folders}/{name}"), reverse=True):
            libraries = "" if root == Path("/") else os.pathsep.join(map(str, unpacked.glob("usr/lib/*-linux-gnu*")))
            return str(program), libraries
    raise CannotStartError(f"{name} is not installed")
