"""What the calls tell Airflow's metrics, as a StatsD server receives it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox

TASK = """
from inspect import signature
from airflow_provider_whatsapp._compat import load_stats
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.sandbox import no_waits

stats = load_stats()
try:
    from airflow.sdk.observability.metrics.stats_utils import get_stats_factory
except ImportError:  # Airflow 3.1 sets its metrics up when they are first used
    pass
else:  # Later versions do so before they run a task
    if signature(get_stats_factory).parameters:  # Airflow 3.2
        stats.initialize(factory=get_stats_factory(stats))
    else:
        stats.initialize(factory=get_stats_factory(), export_legacy_names=True)

stats.incr("other")
with no_waits():
    assert len(WhatsAppHook().list_wabas()) == 250
"""


def test_requests_throttles_and_usage(connected: GraphSandbox, tmp_path: Path) -> None:
    connected.fail_next(Fault.throttle(minutes=1).after(1), Fault.high_usage(42).after(1))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        environment = {
            **os.environ,
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(server.getsockname()[1]),
        }
        subprocess.run([sys.executable, "-c", TASK], env=environment, check=True)
        received: Counter[str] = Counter()
        try:
            while True:
                received[server.recv(2000).decode()] += 1
        except BlockingIOError:  # The process that sends has ended.
            pass
    metrics = {line: count for line, count in received.items() if "whatsapp" in line}
    assert metrics == {
        "airflow.whatsapp.requests:1|c": 4,
        "airflow.whatsapp.throttled:1|c": 1,
        "airflow.whatsapp.api_usage:42.0|g": 1,
        "airflow.whatsapp.api_usage:100.0|g": 1,
    }
