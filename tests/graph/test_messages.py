from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_whatsapp.graph import GraphProtocolError, GraphTransportError, messages
from airflow_provider_whatsapp.graph.messages import Response, decompress, printable_header


@pytest.mark.parametrize("encoding", [{}, {"content-encoding": "identity"}, {"content-encoding": ""}])
def test_a_plain_body_is_taken_as_it_is(encoding: dict[str, str]) -> None:
    assert decompress(Response(200, encoding, b"{}")) == b"{}"


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", " GZIP "])
def test_a_compressed_body_is_unpacked(encoding: str) -> None:
    assert decompress(Response(200, {"content-encoding": encoding}, gzip.compress(b"{}"))) == b"{}"


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=20), st.sampled_from([b"", b"\0\0", b"other"]))
def test_a_compressed_body_may_have_several_members(parts: list[bytes], surplus: bytes) -> None:
    packed = b"".join(map(gzip.compress, parts))
    headers = {"content-encoding": "gzip"}
    assert decompress(Response(200, headers, packed + surplus)) == b"".join(parts)
    with pytest.raises(GraphTransportError, match="truncated"):
        decompress(Response(200, headers, packed[:-1]))


def test_the_members_of_a_compressed_body_are_counted() -> None:
    member, headers = gzip.compress(b""), {"content-encoding": "gzip"}
    assert decompress(Response(200, headers, member * 100)) == b""
    with pytest.raises(GraphProtocolError, match="more than 100 parts"):
        decompress(Response(200, headers, member * 500_000))


def test_an_empty_body_says_gzip_too() -> None:
    assert decompress(Response(204, {"content-encoding": "gzip"}, b"")) == b""


def test_a_compressed_body_cut_short_is_a_transport_error() -> None:
    with pytest.raises(GraphTransportError, match="truncated"):
        decompress(Response(200, {"content-encoding": "gzip"}, gzip.compress(b'{"data":[]}' * 100)[:-9]))


def test_a_damaged_compressed_body_is_a_transport_error() -> None:
    with pytest.raises(GraphTransportError, match="corrupted"):
        decompress(Response(200, {"content-encoding": "gzip"}, b"<html>"))


def test_an_encoding_that_was_not_offered_is_refused() -> None:
    with pytest.raises(GraphProtocolError, match="not gzip"):
        decompress(Response(200, {"content-encoding": "br"}, b"x"))


def test_a_body_is_bounded_also_after_unpacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_BODY_BYTES", 1024)
    packed = {"content-encoding": "gzip"}
    halves = gzip.compress(b" " * 1024) + gzip.compress(b" ")
    for body, headers in [(b" " * 1025, {}), (gzip.compress(b" " * 1025), packed), (halves, packed)]:
        with pytest.raises(GraphProtocolError, match="larger than"):
            decompress(Response(200, headers, body))
    for body, headers in [(b" " * 1024, {}), (gzip.compress(b" " * 1024), {"content-encoding": "gzip"})]:
        assert decompress(Response(200, headers, body)) == b" " * 1024


@given(st.binary(max_size=300), st.sampled_from(["gzip", "identity", "br"]))
def test_any_bytes_unpack_to_bytes_or_a_graph_error(body: bytes, encoding: str) -> None:
    try:
        decompress(Response(200, {"content-encoding": encoding}, body))
    except (GraphTransportError, GraphProtocolError):
        pass
    except zlib.error:  # pragma: no cover
        pytest.fail("a library's error came through")


def test_a_header_is_short_and_printable() -> None:
    assert printable_header({"x": "a\nb" + "c" * 300}, "x") == "ab" + "c" * 197
    assert printable_header({}, "x") == ""
