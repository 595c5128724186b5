"""The commands of this project. ``python3 -m nox -l`` lists them, and ``python3 -m nox -s tests`` runs one."""

from __future__ import annotations

import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True

ORIGIN = "import airflow_provider_whatsapp as package; print(package.__file__)"
PINS = ("-c", "constraints.txt")
# An older Airflow does not limit the versions of its dependencies, and today's versions break it.
OF_THEIR_TIME = ("--exclude-newer", "2026-07-10")
# What needs no whole Airflow.
QUICK = ("tests/graph", "tests/hooks", "tests/sandbox", "tests/storage")
# More than eight processes gain nothing: each of them loads Airflow first and creates a database for its DAGs.
PARALLEL = ("-n", "auto", "--maxprocesses", "8", "--dist", "worksteal")
AZURITE = "azurite@3.35.0"
PRISM = "@stoplight/prism-cli@5.14.2"
SSHD_PACKAGES = ("openssh-server", "openssh-sftp-server", "libwrap0")


def package() -> tuple[str, ...]:
    """What to install: this folder, or with ``FROM_WHEEL=1`` the wheel that ``nox -s build`` left in ``dist/``."""
    if not os.environ.get("FROM_WHEEL"):
        return "-e", "."
    (wheel,) = Path("dist").glob("*.whl")
    return (str(wheel),)


@nox.session
def demo(session: nox.Session) -> None:
    """List accounts in a real Airflow: those of the connection ``whatsapp_default``, or those of a sandbox."""
    session.install(*PINS, "-e", ".")
    session.run("python", "demo.py", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests on several processors. ``graph/`` and ``webhooks.py`` must have full branch coverage."""
    session.install(*PINS, "-e", ".", "--group", "tests")
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    session.run("pytest", *PARALLEL, "--cov", "--cov-report=")
    session.run("coverage", "report")
    session.run("coverage", "report", "--include=*/graph/*,*/webhooks.py", "--fail-under=100")


@nox.session
def quick(session: nox.Session) -> None:
    """Run the tests of the core, the hook, the sandbox and the stores, in less than three minutes."""
    session.install(*PINS, "-e", ".", "--group", "tests")
    session.run("pytest", *PARALLEL, *(session.posargs or QUICK))


@nox.session
def lint(session: nox.Session) -> None:
    """Run the linter and check the format."""
    session.install(*PINS, "--group", "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package, the tests and the scripts with ``mypy --strict``."""
    session.install(*PINS, "-e", ".", "--group", "types", "--group", "tests", "--group", "browser")
    session.run("mypy")


@nox.session(python=["3.10", "3.13"])
@nox.parametrize("airflow", ["3.1", "3.2", "3.3"])
def matrix(session: nox.Session, airflow: str) -> None:
    """Run the tests, and check the types of task arguments, on each supported version of Airflow.

    With ``FROM_WHEEL=1``, they run against the wheel in ``dist/``.
    """
    as_of = () if airflow == "3.3" else OF_THEIR_TIME
    session.install(*as_of, f"apache-airflow=={airflow}.*")
    session.install(*package(), "--group", "tests", "mypy")
    session.run("mypy", "--follow-imports=silent", "tests/types/task_arguments.py")
    session.run("pytest", *PARALLEL, *session.posargs)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest direct dependencies, with ``FROM_WHEEL=1`` against the wheel in ``dist/``."""
    # Also with the indirect dependencies of that time, because Airflow 3.1.0 cannot be imported with later ones.
    session.install("--exclude-newer", "2025-10-15", "--resolution=lowest-direct", *package(), "--group", "tests")
    session.run("pytest", *PARALLEL, *session.posargs)


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

    ``nox -s stores -- -m quick`` runs what takes seconds, in two minutes. Azurite needs Node.js with npm. The server of
    OpenSSH is taken from Debian when it is not installed. What is missing is skipped.
    """
    session.install(*PINS, "-e", ".[s3,gcs,azure,sftp]", "--group", "stores")
    servers = Path(session.create_tmp(), "servers").resolve()
    if shutil.which("npm"):
        session.run(
            "npm", "install", "--silent", "--prefix", str(servers), AZURITE, external=True, success_codes=[0, 1]
        )
    if not shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") and shutil.which("dpkg"):
        unpack(session, SSHD_PACKAGES, servers / "ssh")
    session.run("pytest", "e2e/stores", "-rs", *session.posargs, env={"STORE_SERVERS": str(servers)})


@nox.session
def celery(session: nox.Session) -> None:
    """Run the operators on a CeleryExecutor with two workers, and kill one of them. This takes some five minutes.

    PostgreSQL and Redis are taken from Debian when they are not installed.
    """
    session.install(*PINS, "-e", ".[s3]", "--group", "celery")
    services = Path(session.create_tmp(), "services").resolve()
    if not any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        # Debian's package `postgresql` is empty and depends on the one of the release, as in `postgresql-15`.
        unpack(session, with_libraries(session, *depends_on(session, "postgresql")), services)
    if not shutil.which("redis-server"):
        unpack(session, with_libraries(session, "redis-server", "redis-tools"), services)
    session.run("python", "e2e/several_workers.py", env={"SERVICES": str(services)})


def unpack(session: nox.Session, packages: Iterable[str], folder: Path) -> None:
    """Put the files of Debian's packages into a folder. This needs no root, and starts nothing."""
    downloads = folder.with_name(f"{folder.name}-packages")
    downloads.mkdir(parents=True, exist_ok=True)
    with session.chdir(downloads):
        session.run("apt-get", "download", *packages, external=True, success_codes=[0, 100])
    for package in downloads.glob("*.deb"):
        session.run("dpkg", "-x", str(package), str(folder), external=True)


def depends_on(session: nox.Session, *packages: str) -> list[str]:
    """The names of the packages that packages of Debian depend on."""
    printed = session.run("apt-cache", "depends", *packages, external=True, silent=True)
    return re.findall(r"^ +Depends: (\S+)", str(printed), re.MULTILINE)


def with_libraries(session: nox.Session, *packages: str) -> list[str]:
    """Packages of Debian and the libraries that they need, except those of every Debian, and the large LLVM."""
    needed = {name for name in depends_on(session, *packages) if name.startswith("lib")}
    return [*packages, *sorted(name for name in needed if not re.match("libc6|libgcc|libstdc|libllvm", name))]


@nox.session
def openapi(session: nox.Session) -> None:
    """Hold the client and the sandbox against the OpenAPI file that Meta publishes, with Prism from npm.

    ``nox -s openapi -- FILE`` takes the path of ``business-messaging-api_v23.0.yaml``, which is in Meta's repository
    https://github.com/facebook/openapi.
    """
    if not session.posargs:
        session.skip("give the path of Meta's OpenAPI file, see the session's description")
    session.install(*PINS, "-e", ".", "--group", "openapi")
    folder = Path(session.create_tmp(), "prism").resolve()
    session.run("npm", "install", "--silent", "--prefix", str(folder), PRISM, external=True)
    command = str(folder / "node_modules" / ".bin" / "prism")
    session.run("python", "e2e/openapi.py", *session.posargs, env={"PRISM": command})


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
def docs(session: nox.Session) -> None:
    """Build the documentation site in ``docs/_build``. A warning is an error. This needs Python 3.11 or later."""
    session.install(*PINS, "-e", ".", "--group", "docs")
    # The reference imports the package, and Airflow then writes its settings into its home.
    home = Path(session.create_tmp()).resolve()
    session.run(
        "sphinx-build", "-W", "--keep-going", "-n", "-E", "-q", "-b", "html", "docs", "docs/_build",
        env={"AIRFLOW_HOME": str(home)},
    )  # fmt: skip
    session.log("The site begins at docs/_build/index.html")


@nox.session
def screenshots(session: nox.Session) -> None:
    """Take the pictures of the documentation from a real Airflow. Chromium must be installed."""
    session.install(*PINS, "-e", ".", "--group", "browser")
    session.run("python", "e2e/screenshots.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Compare with other libraries, and measure what waits, edges, hostile answers and Parquet cost.

    This takes about half an hour on a machine that does nothing else. ``nox -s bench -- --quick`` takes three minutes
    and shows that everything runs. ``--docs docs`` replaces the tables and the chart of the documentation.
    """
    session.install("--compile-bytecode", *PINS, "-e", ".[parquet]", "--group", "bench")
    # Otherwise each of the processes would compile this package anew.
    session.run("python", "-m", "compileall", "-q", "airflow_provider_whatsapp", "benchmarks")
    session.run("python", "benchmarks/compare.py", *session.posargs, env={"PYTHONDONTWRITEBYTECODE": ""})
    if not session.posargs:
        session.run("python", "benchmarks/many_waits.py")
        session.run("python", "benchmarks/hostile_answers.py")
        session.run("python", "benchmarks/waba_edges.py")
        session.run("python", "benchmarks/parquet.py")


@nox.session
def build(session: nox.Session) -> None:
    """Build the distributions, check what is in them, and run the demo with the wheel alone in a new environment."""
    session.install(*PINS, "--group", "release")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("uv", "build", external=True)
    session.run("twine", "check", "--strict", *map(str, Path("dist").glob("airflow_provider_whatsapp-*")))
    (wheel,) = Path("dist").glob("*.whl")
    check_wheel(session, wheel)

    folder = Path(session.create_tmp(), "elsewhere").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    python = folder / "venv" / "bin" / "python"
    session.run("uv", "venv", "--quiet", "--python", sys.executable, str(folder / "venv"), external=True)
    session.run("uv", "pip", "install", "--quiet", "--python", str(python), *PINS, str(wheel), external=True)
    # The demo lists from a copy, because it would import the package of this folder, which lies beside it.
    shutil.copy("demo.py", folder)
    shutil.copytree("example_dags", folder / "example_dags")
    with session.chdir(folder):
        origin = session.run(str(python), "-c", ORIGIN, silent=True, external=True)
        if not str(origin).startswith(str(folder / "venv")):
            session.error(f"The package was imported from {origin} and not from the wheel.")
        session.run(str(python), "demo.py", external=True)


def check_wheel(session: nox.Session, wheel: Path) -> None:
    """Print what is in the wheel, and fail if something is missing or does not belong there."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    for name, size in sorted(sizes.items()):
        print(f"{size:>9,}  {name}")
    metadata = next(name.partition("/")[0] for name in sizes if ".dist-info/" in name)
    needed = {
        *(str(path) for path in Path("airflow_provider_whatsapp").rglob("*.py")),
        "airflow_provider_whatsapp/py.typed",
        f"{metadata}/METADATA",
        f"{metadata}/RECORD",
        f"{metadata}/WHEEL",
        f"{metadata}/entry_points.txt",
        f"{metadata}/licenses/LICENSE",
    }
    if needed != set(sizes):
        session.error(
            f"The wheel lacks {sorted(needed - set(sizes))} and should not have {sorted(set(sizes) - needed)}."
        )
