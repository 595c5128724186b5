"""The command that runs a sandbox."""

from __future__ import annotations

import argparse
import shlex
import signal
from collections.abc import Sequence
from datetime import timedelta

from .graph_sandbox import GraphSandbox
from .server.quota import REAL_HOUR

DEFAULT_PORT = 8099
_END_SIGNALS = {signal.SIGINT, signal.SIGTERM}


def seconds(text: str) -> timedelta:
    """Return the duration of an option that is given in seconds."""
    return timedelta(seconds=float(text))


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
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port to listen on; 0 for a free one")
    options = parser.parse_args(argv)
    try:
        sandbox = GraphSandbox(**vars(options))
    except ValueError as error:
        parser.error(str(error))

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
