"""Serve the sandbox from a shell."""

from __future__ import annotations

import argparse
import shlex
import signal
from collections.abc import Sequence

from .server import GraphSandbox

_ENDING = {signal.SIGINT, signal.SIGTERM}


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM.

    :param argv: The arguments, those of the process by default.
    """
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_whatsapp.sandbox",
        description="Serve a local Graph API to try the WhatsApp provider against.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--accounts", type=int, default=25, help="accounts shared with each business")
    parser.add_argument("--owned-accounts", type=int, default=3, help="accounts each business owns")
    parser.add_argument("--businesses", type=int, default=1, help="businesses the token can see")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other accounts")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds each answer takes")
    parser.add_argument("--app-secret", default=None, help="ask for an appsecret_proof made with this secret")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    graph = GraphSandbox(**vars(parser.parse_args(argv)))

    # Blocked before the first thread starts, the signals reach nobody but sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        graph.start()
    except OSError as error:
        parser.error(f"argument --port: {error.strerror}; choose another one")
    try:
        print(f"Graph API sandbox at {graph.url}")
        for business in graph.businesses:
            print(f"business id {business['id']}")
        print(f"export AIRFLOW_CONN_WHATSAPP_DEFAULT={shlex.quote(graph.connection)}", flush=True)
        signal.sigwait(_ENDING)
    finally:
        graph.stop()
    return 0
