"""The commands of this project. ``python3 -m nox -l`` lists them, and ``python3 -m nox -s tests`` runs one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True

PINS = ("-c", "constraints.txt")
AZURITE = "azurite@3.35.0"
SSHD_PACKAGES = ("openssh-server", "openssh-sftp-server", "libwrap0")


@nox.session
def demo(session: nox.Session) -> None:
    """List accounts in a real Airflow: those of the connection ``whatsapp_default``, or those of a sandbox."""
    session.install(*PINS, "-e", ".")
    session.run("python", "demo.py", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests. ``graph/`` and ``webhooks.py`` must have full branch coverage."""
    session.install(*PINS, "-e", ".", "--group", "tests")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    if not session.posargs:
        session.run("coverage", "report")
        session.run("coverage", "report", "--include=*/graph/*,*/webhooks.py", "--fail-under=100")


@nox.session
def lint(session: nox.Session) -> None:
    """Run the linter and check the format."""
    session.install(*PINS, "--group", "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with ``mypy --strict``."""
    session.install(*PINS, "-e", ".", "--group", "types")
    session.run("mypy")


@nox.session(python=["3.10", "3.13"])
@nox.parametrize("airflow", ["3.1", "3.2", "3.3"])
def matrix(session: nox.Session, airflow: str) -> None:
    """Run the tests on each supported version of Airflow with the oldest and the newest Python."""
    # An older Airflow does not limit the versions of its dependencies, and today's versions break it. Install the
    # versions of its time.
    as_of = () if airflow == "3.3" else ("--exclude-newer", "2026-07-10")
    session.install(*as_of, f"apache-airflow=={airflow}.*")
    session.install("-e", ".", "--group", "tests")
    session.run("pytest", *session.posargs)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest direct dependencies that the package allows."""
    session.install("--resolution=lowest-direct", "-e", ".", "--group", "tests")
    session.run("pytest", *session.posargs)


@nox.session
def standalone(session: nox.Session) -> None:
    """Run deferred sensors in ``airflow standalone`` and kill its triggerer. This takes some minutes."""
    session.install(*PINS, "-e", ".")
    session.run("python", "e2e/deferral.py", *session.posargs)


@nox.session
def resuming(session: nox.Session) -> None:
    """Throttle and kill a long listing in ``airflow standalone``. This takes about ten minutes.

    ``nox -s resuming -- SEED`` kills at the moments of that seed.
    """
    session.install(*PINS, "-e", ".")
    session.run("python", "e2e/resuming.py", *session.posargs)


@nox.session
def edges(session: nox.Session) -> None:
    """Throttle and kill a listing of the phone numbers of many accounts in ``airflow standalone``.

    This takes some six minutes. ``nox -s edges -- SEED`` kills at the moments of that seed.
    """
    session.install(*PINS, "-e", ".")
    session.run("python", "e2e/account_edges.py", *session.posargs)


@nox.session
def changes(session: nox.Session) -> None:
    """Change the accounts that an asset watches in ``airflow standalone``, and kill its triggerer.

    This takes some four minutes.
    """
    session.install(*PINS, "-e", ".")
    session.run("python", "e2e/changes.py")


@nox.session
def lineage(session: nox.Session) -> None:
    """Export to assets in ``airflow standalone``, and look at what Airflow and OpenLineage record.

    This takes some two minutes.
    """
    session.install(*PINS, "-e", ".", "apache-airflow-providers-openlineage")
    session.run("python", "e2e/lineage.py")


@nox.session
def webhooks(session: nox.Session) -> None:
    """Deliver webhooks to the receiver of ``docs/webhooks.md`` in front of ``airflow standalone``."""
    session.install(*PINS, "-e", ".")
    session.run("python", "e2e/webhooks.py", *session.posargs)


@nox.session
def stores(session: nox.Session) -> None:
    """Write to real S3, GCS, Azure and SFTP servers on loopback, and print a table. This takes about ten minutes.

    ``nox -s stores -- -m quick`` runs what takes seconds, in two minutes. Azurite needs Node.js with npm. OpenSSH's server is taken from Debian when it is not installed. What is missing is
    skipped.
    """
    session.install(*PINS, "-e", ".", "--group", "stores")
    servers = Path(session.create_tmp(), "servers").resolve()
    if shutil.which("npm"):
        session.run(
            "npm", "install", "--silent", "--prefix", str(servers), AZURITE, external=True, success_codes=[0, 1]
        )
    if not shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") and shutil.which("dpkg"):
        # The packages are only unpacked, so that this needs no root and starts nothing.
        packages = servers / "packages"
        packages.mkdir(parents=True, exist_ok=True)
        with session.chdir(packages):
            session.run("apt-get", "download", *SSHD_PACKAGES, external=True, success_codes=[0, 100])
        for package in packages.glob("*.deb"):
            session.run("dpkg", "-x", str(package), str(servers / "ssh"), external=True)
    session.run("pytest", "e2e/stores", "-rs", *session.posargs, env={"STORE_SERVERS": str(servers)})


@nox.session
def failures(session: nox.Session) -> None:
    """Run the retry policy and ten exports of which three fail in ``airflow standalone``. Chromium must be installed.

    ``nox -s failures -- FOLDER`` also saves pictures of the pages in a folder.
    """
    session.install(*PINS, "-e", ".", "--group", "browser")
    session.run("python", "e2e/failures.py", *session.posargs)


@nox.session
def form(session: nox.Session) -> None:
    """Fill in and test the connection form with Chromium, which must be installed."""
    session.install(*PINS, "-e", ".", "--group", "browser")
    session.run("python", "e2e/connection_form.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks."""
    session.install(*PINS, "-e", ".[parquet]")
    session.run("python", "benchmarks/many_waits.py", *session.posargs)
    session.run("python", "benchmarks/listing.py")
    session.run("python", "benchmarks/hostile_answers.py")
    session.run("python", "benchmarks/waba_edges.py")
    session.run("python", "benchmarks/parquet.py")


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel and the source distribution."""
    session.run("uv", "build", external=True)
