"""Every form in which accounts can be given, and what is wrong with those that cannot be read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import BaseOperator
from hypothesis import given
from hypothesis import strategies as st
from written_objects import write_object

from airflow_provider_whatsapp.hooks._waba_ids import WabaIds
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import GraphSandbox
from airflow_provider_whatsapp.storage import address
from airflow_provider_whatsapp.storage.target import Target

ROWS = [{"id": "1", "name": "a"}, {"id": "2", "name": "b, c"}, {"id": "3", "name": 'd "e"\n'}]
NAMES = [f"a.{suffix}{gz}" for suffix in ("ndjson", "jsonl", "json", "csv") for gz in ("", ".gz")]


def stored(path: Path, rows: Sequence[dict[str, Any]] = ROWS) -> dict[str, Any]:
    """Write the rows, and give what the manifest says of them."""
    written = write_object(Target(str(path)), iter(rows), ["id", "name"])
    return {
        "uri": written.uri,
        "conn_id": None,
        "format": written.format,
        "count": written.count,
        "relationship": "client",
        "business_id": "9",
    }


class Proxy(Sequence[Any]):
    """What Airflow gives of the results of a mapped task: a sequence that is no list."""

    def __init__(self, *values: Any) -> None:
        self._values = values

    def __getitem__(self, index: Any) -> Any:
        return self._values[index]

    def __len__(self) -> int:
        return len(self._values)


FORMS: dict[str, Any] = {
    "list of ids": ["1", "2", "3"],
    "list of numbers": [1, 2, 3],
    "list of both": ["1", 2, " 3 "],
    "tuple": ("1", "2", "3"),
    "other sequence": Proxy("1", 2, {"id": "3"}),
    "rows": ROWS,
    "rows with numbers as ids": [{"id": number} for number in (1, 2, 3)],
    "rows and ids": [{"id": "1"}, "2", 3],
    "lists of rows": [ROWS[:2], [], [ROWS[2]]],
    "lists of lists of ids": [["1"], [["2", "3"]], []],
    "lists of mapped tasks": Proxy(Proxy("1"), Proxy(), Proxy("2", "3")),
    "comma text": "1,2,3",
    "comma text with blanks": " 1 ,2,\n3 ",
    "comma texts in a list": ["1,2", "3"],
    "rendered list": "['1', '2', '3']",
    "rendered list of numbers": "[1, 2, 3]",
    "rendered rows": str(ROWS),
    "rendered row and null": '[{"id": "1", "name": null}, {"id": "2", "x": true}, {"id": "3"}]',
    "rendered JSON": json.dumps(ROWS),
    "rendered lists": str([["1"], ["2", "3"]]),
    "rendered tuple in a list": "[('1', '2'), '3']",
    "rendered rows with an address": str([{"id": 1, "url": "https://a.example/x"}, {"id": 2}, {"id": 3}]),
    "rendered texts in a list": ["['1', '2']", '["3"]'],
    "with blanks around": "\n ['1', '2', '3'] \n",
    "with a byte order mark": "\ufeff1,2,3",
    "rendered with a byte order mark": "\ufeff['1', '2', '3']",
}


@pytest.mark.parametrize("value", FORMS.values(), ids=FORMS)
def test_what_is_there_at_once(value: Any) -> None:
    ids = WabaIds(value)
    assert ids.count == 3
    assert ids.to_json() == [["1", "2", "3"]]
    # They can be taken more than once.
    assert [list(ids), list(ids)] == [["1", "2", "3"]] * 2


@pytest.mark.parametrize(
    "value", ["7", 7, " 7 ", {"id": 7}, {"id": "7", "name": "x"}, ["7"], "{'id': '7'}", '{"id": 7}']
)
def test_a_single_account(value: Any) -> None:
    ids = WabaIds(value)
    assert (ids.count, list(ids)) == (1, ["7"])


@pytest.mark.parametrize("value", [[], (), "[]", " [ ] ", [[]], [[], []], "[[], []]", Proxy()])
def test_an_empty_list_has_no_accounts(value: Any) -> None:
    ids = WabaIds(value)
    assert (ids.count, list(ids), ids.to_json()) in [(0, [], []), (0, [], [[]])]


@pytest.mark.parametrize("value", [None, "", "  ", "None", " None\n"])
def test_no_value_is_no_empty_list(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^waba_ids: .* names no accounts, .*; an empty list reads none; give ids"):
        WabaIds(value)


def test_what_is_taken_one_by_one() -> None:
    def rows() -> Iterator[Any]:
        for number in range(1, 6):
            taken.append(number)
            yield {"id": str(number)} if number % 2 else number

    taken: list[int] = []
    ids = WabaIds(rows())
    assert (ids.count, taken) == (None, [])
    one_by_one = iter(ids)
    assert (next(one_by_one), taken) == ("1", [1])
    assert list(one_by_one) == ["2", "3", "4", "5"]


def test_other_collections() -> None:
    assert list(WabaIds({"1": 0, "2": 0}.keys())) == ["1", "2"]
    assert sorted(WabaIds({"1", "2"})) == ["1", "2"]
    assert list(WabaIds(map(str, range(3)))) == ["0", "1", "2"]
    assert list(WabaIds(iter(()))) == []


def test_an_iterator_that_raises() -> None:
    def rows() -> Iterator[str]:
        yield "1"
        raise KeyError("x")

    with pytest.raises(KeyError):
        list(WabaIds(rows()))


def test_duplicates_are_left_out_wherever_they_come_from(tmp_path: Path) -> None:
    manifest = stored(tmp_path / "a.ndjson", [*ROWS, *ROWS])
    ids = WabaIds(["2", "1", 2, " 2", manifest, str(tmp_path / "a.ndjson"), ["9", "3"], {"id": 9}])
    assert list(ids) == ["2", "1", "3", "9"]
    assert list(WabaIds(iter(["1", "2", "1"]))) == ["1", "2"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("as_url", [False, True])
def test_the_address_of_an_object(tmp_path: Path, name: str, as_url: bool) -> None:
    path = tmp_path / name
    stored(path)
    address = path.as_uri() if as_url else str(path)
    ids = WabaIds(f" {address}\n")
    assert ids.count is None
    assert ids.to_json() == [path.as_uri()]
    assert [list(ids), list(ids)] == [["1", "2", "3"]] * 2
    assert list(WabaIds([address, "9", [address]])) == ["1", "2", "3", "9"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "spell", [dict, str, json.dumps, lambda manifest: [manifest], lambda manifest: Proxy(manifest)]
)
def test_a_manifest(tmp_path: Path, name: str, spell: Callable[[Any], Any]) -> None:
    manifest = stored(tmp_path / name)
    ids = WabaIds(spell(manifest))
    assert ids.count == 3
    assert ids.to_json() == [manifest["uri"]]
    assert list(ids) == ["1", "2", "3"]


def test_the_manifest_of_the_operator(connected: GraphSandbox, tmp_path: Path) -> None:
    for relationship, accounts in (("client", connected.accounts), ("owned", connected.owned_accounts)):
        path = str(tmp_path / f"{relationship}.csv.gz")
        operator = WhatsAppListWabasOperator(task_id="a", relationship=relationship, output_path=path)
        manifest = operator.execute({})
        ids = WabaIds(manifest)
        assert ids.count == len(accounts)
        assert list(ids) == [account["id"] for account in accounts]


def test_several_manifests(tmp_path: Path) -> None:
    manifests = [
        stored(tmp_path / "a.csv", ROWS[:2]),
        stored(tmp_path / "b.json.gz", []),
        {**stored(tmp_path / "c.ndjson", ROWS[1:]), "relationship": "owned"},
    ]
    ids = WabaIds(manifests)
    assert ids.count == 4
    assert ids.to_json() == [manifest["uri"] for manifest in manifests]
    assert list(ids) == ["1", "2", "3"]
    assert list(WabaIds(Proxy(*manifests))) == ["1", "2", "3"]
    mixed = WabaIds(["7", *manifests, "8", "9"])
    assert mixed.count == 7
    assert mixed.to_json() == [["7"], *(manifest["uri"] for manifest in manifests), ["8", "9"]]
    assert list(mixed) == ["7", "1", "2", "3", "8", "9"]
    assert WabaIds([*manifests, str(tmp_path / "a.csv"), "5"]).count is None
    assert WabaIds([str(tmp_path / "a.csv"), manifests[0]]).count is None


def test_a_manifest_without_a_count(tmp_path: Path) -> None:
    manifest = stored(tmp_path / "a.csv")
    del manifest["count"]
    ids = WabaIds(manifest)
    assert (ids.count, list(ids)) == (None, ["1", "2", "3"])


def test_the_format_of_a_manifest_goes_before_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('[{"id":"1"}]')
    assert list(WabaIds({"uri": str(tmp_path / "rows.csv"), "format": "json", "relationship": "client"})) == ["1"]


@pytest.mark.parametrize("edge", ["phone_numbers", "client_whatsapp_business_accounts", "", None, 5])
def test_the_manifest_of_something_else(tmp_path: Path, edge: Any) -> None:
    manifest = {**stored(tmp_path / "a.csv"), "edge": edge}
    del manifest["relationship"]
    with pytest.raises(ValueError, match=rf"^waba_ids: this is the manifest of {edge!r}, not of accounts; give ids"):
        WabaIds(manifest)
    with pytest.raises(ValueError, match=r"^waba_ids\[1\]: this is the manifest of "):
        WabaIds(["5", manifest])


def test_the_manifest_of_an_edge(connected: GraphSandbox, tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    ids = [account["id"] for account in connected.accounts[:3]]
    operator = WhatsAppListWabaEdgeOperator(
        task_id="a", waba_ids=ids, edge="phone_numbers", fields="id", output_path=str(path)
    )
    manifest = operator.execute({})
    with pytest.raises(ValueError, match="^waba_ids: this is the manifest of 'phone_numbers', not of accounts"):
        WabaIds(manifest)
    # The ids of its rows are those of phone numbers.
    with pytest.raises(ValueError, match=r"^waba_ids: row 1 of .*: this is a row of an account's edge, not an acc"):
        list(WabaIds(str(path)))
    with pytest.raises(ValueError, match=r"^waba_ids\[1\]: this is a row of an account's edge, not an account"):
        WabaIds(["1", {"waba_id": "1", "id": "5"}])
    with pytest.raises(ValueError, match=r"^waba_ids\[0\]: this is a row of an account's edge"):
        list(WabaIds(iter([{"waba_id": "1", "id": "5"}])))


WRONG = [
    "x",
    "",
    "1-2",
    "-1",
    -1,
    1.5,
    True,
    None,
    {},
    {"name": "a"},
    {"id": None},
    {"id": ""},
    {"id": True},
    {"id": ["1"]},
    b"12",
    {"id": b"1"},
    "1" * 33,
    # An iterator within a list could be read only once.
    iter(["1"]),
]


@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value).partition(" at ")[0])
def test_a_wrong_id_is_named_with_its_place(value: Any) -> None:
    given: list[Any] = [str(number) for number in range(5000)]
    given[4711] = value
    has_id = not isinstance(value, dict) or value.get("id") is not None
    wrong = ".* is not the id of an account, which is digits only" if has_id else "the row has no `id`; give ids"
    with pytest.raises(ValueError, match=rf"^waba_ids\[4711\]: {wrong}"):
        WabaIds(given)
    with pytest.raises(ValueError, match=rf"^waba_ids\[2\]\[4711\]: {wrong}"):
        WabaIds(["1", [], given])
    taken: list[str] = []
    with pytest.raises(ValueError, match=rf"^waba_ids\[4711\]: {wrong}"):
        taken.extend(WabaIds(iter(given)))
    if not isinstance(value, dict):
        wrong = "the row has no `id`" if value is None else wrong
        with pytest.raises(ValueError, match=rf"^waba_ids\[4711\]: {wrong}"):
            WabaIds([{"id": one} for one in given])


@pytest.mark.parametrize("value", [b"123", bytearray(b"123"), 1.5, True, False, object(), len])
def test_what_is_neither_ids_nor_rows(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^waba_ids: .* is not the id of an account"):
        WabaIds(value)


@pytest.mark.parametrize("text", ["1,", ",", "1,,2", "1;2", "1 2", "1,x", "accounts.ndjson"])
def test_a_text_that_is_no_list_of_ids(text: str) -> None:
    with pytest.raises(ValueError, match=r"^waba_ids: .* is not the id of an account"):
        WabaIds(text)


@pytest.mark.parametrize("text", ["[1", "['1'", "{", "[x]", "[1, y()]", "{{ ids }}", "[" * 50_000, "[" + "(" * 50_000])
def test_a_text_that_is_neither_list_nor_manifest(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"^waba_ids: .* is neither JSON nor a list or an object of Python; give ids"
    ) as caught:
        WabaIds(text)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_id_in_an_object(tmp_path: Path, name: str) -> None:
    rows: list[dict[str, Any]] = [{"id": str(number), "name": "a"} for number in range(1, 5001)]
    rows[4710] = {"id": "x4711", "name": "b"}
    manifest = stored(tmp_path / name, rows)
    for value in (manifest, manifest["uri"]):
        taken: list[str] = []
        with pytest.raises(
            ValueError, match=r"^waba_ids: row 4711 of .*: 'x4711' is not the id of an account"
        ) as caught:
            taken.extend(WabaIds(value))
        assert len(taken) == 4710
        assert manifest["uri"] in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_an_object_whose_rows_have_no_id(tmp_path: Path, name: str) -> None:
    write_object(Target(str(tmp_path / name)), [{"name": "a"}], ["name"])
    with pytest.raises(ValueError, match=r"^waba_ids: row 1 of .*: the row has no `id`; give ids"):
        list(WabaIds(str(tmp_path / name)))
    with pytest.raises(ValueError, match=r"^waba_ids\[1\]: the row has no `id`; give ids"):
        WabaIds([{"id": "1"}, {"name": "a"}])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("now", [0, 2, 4])
def test_an_object_that_was_written_again(tmp_path: Path, name: str, now: int) -> None:
    manifest = stored(tmp_path / name)
    stored(tmp_path / name, [*ROWS, {"id": "4"}][:now])
    taken: list[str] = []
    with pytest.raises(
        ValueError, match=rf"^waba_ids: .* has {now} rows, but its manifest says 3; the object has been rewritten"
    ):
        taken.extend(WabaIds(manifest))
    # By its address alone, any number of rows is right.
    assert len(list(WabaIds(str(tmp_path / name)))) == now


def test_an_object_that_is_not_there(tmp_path: Path) -> None:
    manifest = stored(tmp_path / "a.ndjson")
    (tmp_path / "a.ndjson").unlink()
    for value in (manifest, manifest["uri"], ["5", manifest["uri"]]):
        with pytest.raises(ValueError, match=r"^waba_ids: there is no object .*a\.ndjson$"):
            list(WabaIds(value))


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".gz")])
def test_half_an_object(tmp_path: Path, name: str) -> None:
    manifest = stored(tmp_path / name, [{"id": str(number * 7919), "name": "x"} for number in range(9000)])
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    for value in (manifest, manifest["uri"]):
        with pytest.raises(ValueError, match=r"^waba_ids: .* cannot be read as \w+ after row \d+ \(EOFError\)"):
            list(WabaIds(value))


def test_an_address_is_checked_at_once() -> None:
    for value, reason in {
        "/tmp/accounts.txt": "the suffix of",
        "s3://user:hunter2@bucket/a.csv": "password",
        "nowhere://bucket/a.csv": "no storage is installed",
        "file://host/a.csv": "neither a URL nor",
    }.items():
        with pytest.raises(ValueError, match=f"^waba_ids: .*{reason}") as caught:
            WabaIds(value)
        assert "hunter2" not in str(caught.value)
    for uri in (None, 5, "", "a.csv"):
        with pytest.raises(ValueError, match="^waba_ids: "):
            WabaIds({"uri": uri, "relationship": "client"})


def test_the_connection_of_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from airflow_provider_whatsapp.storage import reader
    from airflow_provider_whatsapp.storage.address import open_store as opened

    asked: list[tuple[str | None, str | None]] = []

    def open_store(argument: str, path: str, conn_id: str | None, default_conn_id: str | None) -> Any:
        asked.append((conn_id, default_conn_id))
        return opened(argument, path, None)

    monkeypatch.setattr(reader, "open_store", open_store)
    manifest = stored(tmp_path / "a.csv")
    WabaIds(manifest["uri"], conn_id="of_argument")
    WabaIds([manifest["uri"]])
    # The manifest says itself how its object was written.
    WabaIds({**manifest, "conn_id": "of_manifest"}, conn_id="of_argument")
    assert asked == [(None, "of_argument"), (None, None), ("of_manifest", None)]


def test_an_address_names_its_own_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.io import attach, store
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setattr(store, "_STORE_CACHE", {})
    for conn_id in ("of_address", "of_output"):
        attach("memory", conn_id=conn_id, fs=MemoryFileSystem())
    opened = [
        address.open_store("waba_ids", path, None, "of_output").place.conn_id
        for path in ("memory://of_address@bucket/a.csv", "memory://bucket/a.csv")
    ]
    assert opened == ["of_address", "of_output"]


def test_a_set_has_an_order_that_the_next_try_finds_again() -> None:
    ids = WabaIds({"30", "4", "100"})
    assert (ids.count, list(ids), ids.to_json()) == (3, ["100", "30", "4"], [["100", "30", "4"]])
    assert list(WabaIds([{"7", "5"}, frozenset({"9", "8"}), "6"])) == ["5", "7", "8", "9", "6"]


@given(st.lists(st.integers(0, 30), max_size=40), st.data())
def test_any_nesting_gives_the_same_ids(numbers: list[int], data: st.DataObject) -> None:
    def nest(values: list[int]) -> list[Any]:
        nested: list[Any] = []
        while values:
            cut = data.draw(st.integers(1, len(values)))
            part, values = values[:cut], values[cut:]
            spell = data.draw(st.sampled_from(["ids", "rows", "list", "text", "rendered"]))
            if spell == "ids":
                nested += map(str, part)
            elif spell == "rows":
                nested += [{"id": number, "name": "a"} for number in part]
            elif spell == "list":
                nested.append([str(number) for number in part])
            elif spell == "text":
                nested.append(",".join(map(str, part)))
            else:
                nested.append(repr(part))
        return nested

    ids = WabaIds(nest(numbers))
    assert ids.count == len(numbers)
    assert list(ids) == [str(number) for number in dict.fromkeys(numbers)]


def test_the_operator_takes_each_form(connected: GraphSandbox, tmp_path: Path) -> None:
    accounts = connected.accounts[:3]
    manifest = stored(tmp_path / "a.csv", accounts)
    expected = None
    for value in (
        [account["id"] for account in accounts],
        accounts,
        manifest,
        str(manifest),
        manifest["uri"],
        [manifest],
        ",".join(account["id"] for account in accounts),
    ):
        operator: BaseOperator = WhatsAppListWabaEdgeOperator(
            task_id="a", waba_ids=value, edge="phone_numbers", fields="id"
        )
        rows = operator.execute({})
        expected = expected or rows
        assert rows == expected
        assert list(dict.fromkeys(row["waba_id"] for row in rows)) == [account["id"] for account in accounts]


def test_a_secret_in_the_wrong_place_is_not_shown() -> None:
    secret = "EAAJ" + "abC9" * 50
    for value in (secret, [secret], {"id": secret}, f"['{secret}'", [{"id": secret}], f"[{secret}]"):
        with pytest.raises(ValueError, match="^waba_ids") as caught:
            WabaIds(value)
        assert secret[-12:] not in str(caught.value)


def test_gzip_is_decided_by_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"id\n5\n"))
    assert list(WabaIds(str(tmp_path / "a.csv.gz"))) == ["5"]
