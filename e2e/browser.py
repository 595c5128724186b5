"""Opens the web pages of a running Airflow in Chromium, for the checks in this folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, ViewportSize, expect, sync_playwright
from running_airflow import LIMIT

SIZE: ViewportSize = {"width": 1280, "height": 900}
CHROMIUM_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextmanager
def browsing(home: Path, env: Mapping[str, str]) -> Iterator[Page]:
    """Open a page of a headless Chromium, which is looked for in ``$CHROMIUM`` and on the ``PATH``.

    :param home: folder in which the browser's new profile is created
    :param env: the browser's environment variables
    """
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            home / "browser", executable_path=chromium, args=CHROMIUM_ARGUMENTS, env={**env}, viewport=SIZE,
            locale="en-US", timeout=1000 * LIMIT,
        )  # fmt: skip
        try:
            context.set_default_timeout(1000 * LIMIT)
            expect.set_options(timeout=1000 * LIMIT)
            yield context.pages[0]
        finally:
            context.close()
