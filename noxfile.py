"""The commands of this project. ``python3 -m nox -l`` lists them, and ``python3 -m nox -s tests`` runs one."""

from __future__ import annotations

import os
import shutil
import sys
import time
import zipfile
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True

ORIGIN = "import airflow_provider_whatsapp as package; print(package.__file__)"
PINS = ("-c", "constraints.txt")
# An older Airflow does not limit the versions of its dependencies, and today's versions break it.
OF_THEIR_TIME = ("--exclude-newer", "2026-07-10")
# Folders whose modules import one another by name.
SCRIPTS = ("benchmarks", "docs", "e2e", "e2e/stores", "tests/support")
# The tests that alone run every branch of graph/ and webhooks.py. Tracing all the others would double their time.
CORE = ("tests/graph", "tests/test_webhooks.py")
# What needs no whole Airflow.
QUICK = ("tests/graph", "tests/hooks", "tests/sandbox", "tests/storage")
# More than eight processes gain nothing: each of them loads Airflow first and creates a database for its DAGs.
PARALLEL = ("-n", "auto", "--maxprocesses", "8", "--dist", "worksteal")
# What runs each check of e2e/README.md, in the order of `nox -s e2e -- all`.
CHECKS = {
    "stores": ("pytest", "e2e/stores", "-rs"),
    "standalone": ("python", "e2e/deferral.py"),
    "changes": ("python", "e2e/changes.py"),
    "lineage": ("python", "e2e/lineage.py"),
    "webhooks": ("python", "e2e/webhooks.py"),
    "resuming": ("python", "e2e/resuming.py"),
    "edges": ("python", "e2e/account_edges.py"),
    "rotation": ("python", "e2e/rotation.py"),
    "celery": ("python", "e2e/several_workers.py"),
    "failures": ("python", "e2e/failures.py"),
    "form": ("python", "e2e/connection_form.py"),
    "screenshots": ("python", "e2e/screenshots.py"),
    "openapi": ("python", "e2e/openapi.py"),
}


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
    """Run the tests on several processors. ``graph/`` and ``webhooks.py`` must have full branch coverage.

    ``nox -s tests -- -n auto --cov`` reports the coverage of the whole package.
    """
    session.install(*PINS, "-e", ".", "--group", "tests")
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    session.run("pytest", *PARALLEL, *CORE, "--cov", "--cov-report=")
    session.run("coverage", "report", "--include=*/graph/*,*/webhooks.py", "--fail-under=100")
    session.run("pytest", *PARALLEL, *(f"--ignore={path}" for path in CORE))


@nox.session
def quick(session: nox.Session) -> None:
    """Run the tests of the core, the hook, the sandbox and the stores, in less than three minutes."""
    session.install(*PINS, "-e", ".", "--group", "tests")
    session.run("pytest", *PARALLEL, *(session.posargs or QUICK))


@nox.session
def lint(session: nox.Session) -> None:
    """Run the linters, and check the format, the tables of the documentation, imports, dependencies and workflows.

    ``nox -s lint -- --write`` writes the format and the tables instead of checking them.
    """
    session.install(*PINS, "-e", ".", "--group", "lint")
    writes = "--write" in session.posargs
    session.run("ruff", "check", ".")
    session.run("ruff", "format", *(() if writes else ("--check",)), ".")
    # The tables are printed by docs/tables.py, which imports the package, and Airflow then writes into its home.
    pages = map(str, sorted(Path("docs").glob("*.md")))
    mode = ("-r",) if writes else ("--check", "--diff")
    session.run(
        "cog", *mode, "--verbosity=1", "-P", "-I", "docs", "-p", "import tables", *pages,
        env={"AIRFLOW_HOME": str(Path(session.create_tmp()).resolve())},
    )  # fmt: skip
    session.run("lint-imports", "--no-cache")
    # What it prints is shown if it fails. Otherwise, it would list every package that is not installed here.
    session.run("deptry", "airflow_provider_whatsapp", silent=True)
    # What is beside the package may import what any dependency group declares.
    session.run("deptry", ".", *SCRIPTS, "--ignore", "DEP002,DEP004", silent=True)
    session.run("zizmor", "--offline", "--no-progress", "--strict-collection", ".")


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
def e2e(session: nox.Session) -> None:
    """Run a check that needs a whole Airflow, a store or a browser: ``nox -s e2e -- NAME``, or ``all`` of them.

    Without a name, it prints ``e2e/README.md``, which describes the checks. Other arguments go to the check.
    """
    if not session.posargs:
        print(Path("e2e/README.md").read_text(encoding="utf-8"))
        return
    name, *arguments = session.posargs
    if name != "all" and name not in CHECKS:
        session.error(f"{name!r} is none of {', '.join(CHECKS)} and all")
    groups = ("--group", "tests", "--group", "browser", "--group", "e2e")
    session.install(*PINS, "-e", ".[s3,gcs,azure,sftp,openlineage]", *groups)
    if name != "all":
        session.run(*CHECKS[name], *arguments)
        return
    results = {}
    for each, command in CHECKS.items():
        began = time.monotonic()
        try:
            session.run(*command)
            results[each] = "passed"
        except CommandFailed:
            results[each] = "FAILED"
        results[each] += f" in {(time.monotonic() - began) / 60:.0f} min"
    print(*(f"{each:12} {result}" for each, result in results.items()), sep="\n")
    if any("FAILED" in result for result in results.values()):
        session.error("A check has failed.")


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
