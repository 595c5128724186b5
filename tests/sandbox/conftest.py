from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_whatsapp.sandbox import GraphSandbox


@pytest.fixture
def sandbox() -> Iterator[GraphSandbox]:
    """A sandbox with three default pages of client accounts."""
    with GraphSandbox(accounts=60) as sandbox:
        yield sandbox
