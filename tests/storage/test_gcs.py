from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from airflow_provider_whatsapp.storage.gcs import MaskUploads

ADDRESS = "https://storage.googleapis.com/upload/storage/v1/b/lake/o?uploadType=resumable&upload_id=5ecret-id"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[logging.Logger]:
    caplog.set_level(logging.DEBUG)
    log = logging.getLogger("gcsfs")
    log.addFilter(mask := MaskUploads())
    yield log
    log.removeFilter(mask)


def test_the_address_of_an_upload_is_masked(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    log.debug(f"POST: {ADDRESS}, (), None")
    log.error("Location failed: %s", {"Location": [ADDRESS]})
    try:
        raise OSError(f"Forbidden: {ADDRESS}\nno")
    except OSError:
        log.exception("a chunk failed")
    assert "5ecret" not in caplog.text
    assert [record.getMessage()[:15] for record in caplog.records] == [
        "POST: https://s",
        "Location failed",
        "a chunk failed",
    ]


def test_everything_else_is_logged_as_it_is(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    log.debug("GET: b/%s/o", "lake")
    try:
        raise OSError("out of reach")
    except OSError:
        log.exception("a request failed")
    assert caplog.records[0].args == ("lake",)
    assert "OSError: out of reach" in caplog.text
