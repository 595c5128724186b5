"""Prints the tables of the documentation from the code.

cog runs what stands in a page between ``[[[cog`` and ``]]]``, and puts what it prints below. Run on its own, this file
prints the rows of the tables that name no source.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable
from datetime import timedelta
from itertools import groupby
from typing import Any

from airflow_provider_whatsapp.graph.edges import EDGES, EDGES_OF_ACCOUNT, RELATIONSHIPS, find_edge
from airflow_provider_whatsapp.graph.error_codes import ADVICE_OF_CLASS, CODES
from airflow_provider_whatsapp.graph.errors import GraphRateLimitError
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.rows import Manifest
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor
from airflow_provider_whatsapp.storage.columns import TYPED_COLUMNS
from airflow_provider_whatsapp.tasks.arguments import LIST_ARGUMENTS, OUTPUT_ARGUMENTS, QUERY_ARGUMENTS
from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppWabasChangeTrigger, WhatsAppWabasTrigger
from airflow_provider_whatsapp.webhooks import ENTRY_IS_A_BUSINESS, TOPICS, AccountChange

_CLASSES = {
    it.__name__: it
    for it in (
        AccountChange, GraphSandbox, WhatsAppHook, WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator,
        WhatsAppWabasChangeTrigger, WhatsAppWabasSensor, WhatsAppWabasTrigger,
    )
}  # fmt: skip
_WAITING = ("deferrable", "max_wait_in_place", "max_usage")
_GROUPS = {
    "query": QUERY_ARGUMENTS,
    "output": (*OUTPUT_ARGUMENTS, *(name for name in LIST_ARGUMENTS if name not in _WAITING)),
    "waiting": _WAITING,
}
# The value of the setting is that of the Airflow that runs this.
_DEFAULTS = {"deferrable": "the setting `[operators] default_deferrable`"}
_PARQUET = {
    "text": "STRING", "truth": "BOOLEAN", "number": "INT64", "decimal": "DECIMAL(38, 18)",
    "time": "TIMESTAMP(MICROS, UTC)",
}  # fmt: skip
_RESULTS = {"harmless": "complete", "passing": "retried"}
# The errors that a listing raises for a fault. tests/docs/test_reference.py tries every fault.
_ERRORS = {
    "GraphRateLimitError": "throttle too_many_requests",
    "GraphTokenError": "expired_token revoked_token echoed_token bad_proof",
    "GraphPermissionError": "no_advanced_access no_permission no_capability blocked no_account_permission",
    "GraphRequestError": "wrong_business insights_not_enabled nonexisting_field",
    "GraphProtocolError": (
        "redirect deep_json unknown_encoding repeated_cursor cursor_cycle no_data data_not_a_list "
        "row_not_an_object paging_not_an_object"
    ),
}


def arguments(of: str, group: str = "") -> None:
    """Print the arguments of a class with their descriptions in its docstring.

    :param of: name of the class
    :param group: ``"query"``, ``"output"`` or ``"waiting"`` for these arguments of an operator and ``"other"`` for the
        rest; or ``"own"`` for those that differ from ``WhatsAppListWabasOperator``; by default all
    """
    described = _descriptions(of)
    chosen = {
        "": [*described],
        "own": [name for name in described if name not in _shared(of)],
        "other": [name for name in described if not any(name in names for names in _GROUPS.values())],
        **{key: [name for name in described if name in names] for key, names in _GROUPS.items()},
    }[group]
    parameters = inspect.signature(_CLASSES[of]).parameters
    rows = ([f"`{name}`", described[name], _default(parameters[name])] for name in chosen)
    _print_table(("argument", "meaning", "default"), rows)


def shared_arguments(of: str) -> None:
    """Print the names of the arguments that mean the same as for ``WhatsAppListWabasOperator``.

    :param of: name of another operator or a sensor
    """
    print(textwrap.fill(", ".join(f"`{name}`" for name in _shared(of)) + ".", 120))


def methods() -> None:
    """Print the methods of the hook that users call."""
    public = {name: it for name, it in vars(WhatsAppHook).items() if inspect.isfunction(it) and name[0] != "_"}
    rows = (
        [f"`{name}{_signature(it)}`", _first_paragraph(it), f"`a{name}`" if f"a{name}" in public else ""]
        for name, it in public.items()
        if not inspect.iscoroutinefunction(it) and not inspect.isasyncgenfunction(it)
    )
    _print_table(("method", "what it does", "async twin"), rows)


def default_fields() -> None:
    """Print the default fields of an account."""
    names = find_edge(RELATIONSHIPS["client"]).fields.split(",")
    print(textwrap.fill(f"The default `fields` of accounts are {', '.join(f'`{name}`' for name in names)}.", 120))


def manifest(*keys: str) -> None:
    """Print what keys of a manifest mean.

    :param keys: names of the keys
    """
    comments = re.findall(r"    #: ((?:.|\n +#:)*)\n    (\w+): ", inspect.getsource(Manifest))
    meanings = {key: text.replace("#:", "") for text, key in comments}
    _print_table(("key", "meaning"), ([f"`{key}`", _sentence(meanings[key])] for key in keys))


def edges() -> None:
    """Print the edges of an account."""
    rows = (
        [f"`{it.name}`", f"`{it.fields}`" if it.fields else "", ", ".join(f"`{name}`" for name in it.required)]
        for it in EDGES_OF_ACCOUNT
    )
    _print_table(("edge", "default fields", "`edge_params` that it needs"), rows)


def columns() -> None:
    """Print the columns of Parquet by their types."""
    rows = [
        [type, f"`{parquet}`", ", ".join(f"`{it.name}`" for it in TYPED_COLUMNS if it.type == type)]
        for type, parquet in _PARQUET.items()
    ]
    _print_table(("type", "Parquet type", "columns"), [*rows, ["JSON", "`STRING`", "every other column"]])


def error_codes(*, one_account: bool = False) -> None:
    """Print the error codes; those with the same class and advice are one row.

    :param one_account: whether to print only the codes for which ``on_account_error="skip"`` leaves out an account
    """
    rows: dict[tuple[str, str], list[tuple[int, int | None]]] = {}
    for row in CODES:
        codes = [(code, None) for code in row.codes] + [(row.codes[0], it) for it in row.subcodes if it is not None]
        for code, subcode in codes:
            details = row.details(subcode)
            if not one_account or (details.one_account and row.kind is not GraphRateLimitError):
                key = row.kind.__name__, details.advice or ADVICE_OF_CLASS[row.kind]
                rows.setdefault(key, []).append((code, subcode))
    _print_table(
        ("code", "class", "what to do"),
        ([_ranges(codes), f"`{kind}`", advice] for (kind, advice), codes in rows.items()),
    )


def faults() -> None:
    """Print the faults of the sandbox: a table for each group, under the comment that begins the group in the code."""
    source = textwrap.dedent(inspect.getsource(Fault))
    body: list[Any] = ast.parse(source).body[0].body  # type: ignore[attr-defined]  # a class
    errors = {name: f"`{error}`" for error, names in _ERRORS.items() for name in names.split()}
    groups: dict[str, list[list[str]]] = {}
    title, end = "", 0
    for node, after in zip(body, [*body[1:], None], strict=True):
        for comment in re.findall(r"^    # (.+)", "\n".join(source.splitlines()[end : node.lineno - 1]), re.MULTILINE):
            title = comment
        end = node.end_lineno
        name = ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else getattr(node, "name", "")
        if fault := Fault.catalogue().get(name):
            maker = getattr(Fault, name)
            # A fault without options is an attribute, and the string after it is its docstring.
            is_function = inspect.isfunction(maker)
            call = f"{name}{_signature(maker) if is_function else '()'}"
            text = inspect.getdoc(maker) if is_function else inspect.cleandoc(after.value.value)
            result = errors.get(name) or _RESULTS.get(fault.nature)
            if result is None:
                raise ValueError(f"_ERRORS does not say which error a listing raises for {name}")
            groups.setdefault(title, []).append([f"`{call}`", _with_parameters(text or ""), result])
    for title, rows in groups.items():
        print(f"\n### {title}\n")
        _print_table(("fault", "what happens", "result"), rows)
    print()


def change_attributes() -> None:
    """Print the attributes of a change that a webhook reports."""
    _print_table(("attribute", "meaning"), ([f"`{name}`", it] for name, it in _descriptions("AccountChange").items()))


def webhook_topics() -> None:
    """Print the topics of webhooks about accounts."""
    rows = (
        [
            f"[`{it.field}`]({it.source})",
            f"`{it.event}`" + (f" in `{it.inside}`" if it.inside else "") if it.event else "the name of the topic",
            "no" if it.field in ENTRY_IS_A_BUSINESS else "yes",
        ]
        for it in TOPICS
    )
    _print_table(("topic", "`event` is", "names the account"), rows)


def without_source() -> list[str]:
    """Return the rows of the tables of codes, edges, columns and topics that name no page or file of Meta."""
    sources = {
        **{f"code {row.codes[0]}": row.source for row in CODES},
        **{f"edge {row.name}": row.source for row in EDGES},
        **{f"column {row.name}": row.source for row in TYPED_COLUMNS},
        **{f"topic {row.field}": row.source for row in TOPICS},
    }
    return [name for name, source in sources.items() if not source.startswith("https://")]


def _shared(of: str) -> list[str]:
    theirs = _descriptions("WhatsAppListWabasOperator")
    return [name for name, text in _descriptions(of).items() if theirs.get(name) == text]


def _descriptions(of: str) -> dict[str, str]:
    described = dict(_parameters(inspect.getdoc(_CLASSES[of]) or ""))
    if missing := inspect.signature(_CLASSES[of]).parameters.keys() - {*described, "kwargs"}:
        raise ValueError(f"the docstring of {of} does not describe {', '.join(missing)}")
    return {name: _sentence(text) for name, text in described.items()}


def _parameters(docstring: str) -> list[tuple[str, str]]:
    return re.findall(r"^:param (\w+): (.*?)(?=^:|\Z)", docstring, re.DOTALL | re.MULTILINE)


def _with_parameters(docstring: str) -> str:
    text, _, _ = docstring.partition("\n:param")
    return " ".join(
        [_sentence(text), *(f"`{name}`: {_sentence(it, capital=False)}" for name, it in _parameters(docstring))]
    )


def _first_paragraph(of: Callable[..., Any]) -> str:
    return _sentence((inspect.getdoc(of) or "").partition("\n\n")[0])


def _sentence(text: str, *, capital: bool = True) -> str:
    """Return reStructuredText as a sentence in Markdown."""
    text = " ".join(text.split()).removesuffix(".")
    text = re.sub(r":\w+:`~?[.\w]*?(\w+)`", r"`\1`", text.replace("``", "`"))
    return f"{text[0].upper() if capital else text[0]}{text[1:]}."


def _signature(of: Callable[..., Any]) -> str:
    signature = inspect.signature(of)
    bare = [it.replace(annotation=it.empty) for name, it in signature.parameters.items() if name != "self"]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty)).replace("'", '"')


def _default(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is parameter.empty:
        return "required"
    shown = str(value) if isinstance(value, timedelta) else repr(value).replace("'", '"')
    return _DEFAULTS.get(parameter.name) or f"`{shown}`"


def _ranges(codes: list[tuple[int, int | None]]) -> str:
    """Return ``1-3, 7, 100/33`` for such codes and subcodes."""
    numbers = sorted(code for code, subcode in codes if subcode is None)
    runs = [[code for _, code in run] for _, run in groupby(enumerate(numbers), lambda it: it[1] - it[0])]
    shown = [f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join([*shown, *(f"{code}/{subcode}" for code, subcode in codes if subcode is not None)])


def _print_table(head: tuple[str, ...], rows: Iterable[list[str]]) -> None:
    print("|", " | ".join(head), "|")
    print("|---" * len(head) + "|")
    for row in rows:
        print("|", " | ".join(cell.replace("|", "\\|") for cell in row), "|")


if __name__ == "__main__":
    print(*without_source(), sep="\n")
