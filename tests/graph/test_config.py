from __future__ import annotations

import pytest

from airflow_provider_whatsapp import __version__
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.credentials import Credentials
from airflow_provider_whatsapp.graph.messages import Request


def config(base_url: str = "https://graph.facebook.com") -> GraphConfig:
    return GraphConfig(
        credentials=Credentials("EAAtokentokentoken", "5ecre7"),
        base_url=base_url,
        version="v26.0",
        proxy="http://user:hunter2@proxy:3128",
    )


def test_the_address_has_neither_token_nor_parameters() -> None:
    assert config().url(Request("1/x", {"a": "b"})) == "https://graph.facebook.com/v26.0/1/x"
    assert config().headers == {
        "Accept": "application/json",
        "Accept-Encoding": "gzip",
        "User-Agent": f"airflow-provider-whatsapp/{__version__}",
    }


@pytest.mark.parametrize(("base_url", "is_unencrypted"), [("http://127.0.0.1:1", True), ("https://a", False)])
def test_plain_http(base_url: str, is_unencrypted: bool) -> None:
    assert config(base_url).is_unencrypted is is_unencrypted


def test_no_secret_in_the_repr() -> None:
    for secret in ("EAAtoken", "5ecre7", "hunter2"):
        assert secret not in repr(config())
