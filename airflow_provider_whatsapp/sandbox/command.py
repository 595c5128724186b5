"""The command that runs a sandbox."""

from __future__ import annotations

import argparse
import ast
import shlex
import signal
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from .graph_sandbox import GraphSandbox
from .server.faults import Fault
from .server.quota import REAL_HOUR

DEFAULT_PORT = 8099
_END_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_METHODS = ("after", "times", "on")


def seconds(text: str) -> timedelta:
    """Return the duration of an option that is given in seconds."""
    return timedelta(seconds=float(text))


def parse_fault(text: str) -> Fault:
    """Return the fault that an option describes, e.g. ``server_error`` or ``throttle(minutes=1).after(2)``."""
    try:
        return _make_fault(ast.parse(text, mode="eval").body)
    except (SyntaxError, TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a fault ({error}); try for example 'throttle(minutes=1).after(2)'"
        ) from None


def _make_fault(node: ast.expr) -> Fault:
    arguments: list[Any] = []
    keywords: dict[Any, Any] = {}
    if isinstance(node, ast.Call):
        arguments = [ast.literal_eval(argument) for argument in node.args]
        keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
        node = node.func
    # Nothing but the faults and these methods is called, whatever the text says.
    if isinstance(node, ast.Name) and node.id in Fault.catalogue():
        make = getattr(Fault, node.id)
    elif isinstance(node, ast.Attribute) and node.attr in _METHODS:
        make = getattr(_make_fault(node.value), node.attr)
    else:
        raise ValueError(f"{ast.unparse(node)} is unknown")
    fault: Fault = make(*arguments, **keywords)
    return fault


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sandbox until Ctrl-C or SIGTERM, and return the exit status.

    The default port is fixed, so that an Airflow connection to the sandbox still works after a restart.

    :param argv: command-line arguments; None for those of the process
    """
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_whatsapp.sandbox",
        description="Run a local Graph API to try the WhatsApp provider against.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--accounts", type=int, default=25, help="accounts that clients share with each business")
    parser.add_argument("--owned-accounts", type=int, default=3, help="accounts that each business owns")
    parser.add_argument("--businesses", type=int, default=1, help="businesses that the token can see")
    parser.add_argument(
        "--seed", type=int, default=0, help="a different seed gives different accounts and a different token"
    )
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that each response takes")
    parser.add_argument("--app-secret", help="require an appsecret_proof made with this secret")
    parser.add_argument("--calls-per-hour", type=int, help="throttle after this many calls")
    parser.add_argument("--calls-per-hour-and-account", type=int, help="throttle after this many calls for one account")
    parser.add_argument("--hour", type=seconds, default=REAL_HOUR, help="length of that hour in seconds")
    parser.add_argument(
        "--fault",
        type=parse_fault,
        action="append",
        default=[],
        help="what goes wrong, e.g. 'throttle(minutes=1).after(2)'; may be repeated",
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port to listen on; 0 for a free one")
    options = parser.parse_args(argv)
    arguments = vars(options).copy()
    faults = arguments.pop("fault")
    try:
        sandbox = GraphSandbox(**arguments)
    except ValueError as error:
        parser.error(str(error))
    sandbox.fail_next(*faults)

    # Block the signals before the first thread starts, so that only sigwait() receives them.
    signal.pthread_sigmask(signal.SIG_BLOCK, _END_SIGNALS)
    try:
        sandbox.start()
    except (OSError, OverflowError) as error:
        parser.error(
            f"argument --port: cannot listen on port {options.port} ({error}); choose another port, or 0 for a free one"
        )
    try:
        print(f"Graph API sandbox at {sandbox.url}")
        for business in sandbox.businesses:
            print(f"business id {business['id']}")
        print(f"export AIRFLOW_CONN_WHATSAPP_DEFAULT={shlex.quote(sandbox.connection)}", flush=True)
        signal.sigwait(_END_SIGNALS)
    finally:
        sandbox.stop()
    return 0
