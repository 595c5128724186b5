"""Types of nodes and rows, and the generator of rows from the shapes of their fields.

Rows are derived from the seed and the id of the account, so they are the same in every run, and a large sandbox takes
little memory.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .accounts import Node, random_for
from .api_error import ApiError
from .parameters import AccountRead
from .selected_fields import SelectedField


class RowDraft(dict[str, Any]):
    """A row that is being generated, with the fields that already have a value.

    :param number: position of the row on its edge
    """

    def __init__(self, read: AccountRead, rng: random.Random, number: int = 0) -> None:
        super().__init__()
        self.read, self.rng, self.number = read, rng, number

    def draw(self, shape: Any) -> Any:
        """Return a generated value.

        :param shape: a tuple or a range, from which one element is drawn; a function of this draft; a list or a dict of
            shapes; or a constant value
        """
        if isinstance(shape, (tuple, range)):
            return self.rng.choice(shape)
        if callable(shape):
            return shape(self)
        if isinstance(shape, dict):
            return {name: self.draw(inner) for name, inner in shape.items()}
        return [self.draw(inner) for inner in shape] if isinstance(shape, list) else shape


def count_rows(count: int) -> Node:
    """Return the usual summary of an edge."""
    return {"total_count": count}


@dataclass(frozen=True)
class NodeType:
    """A type of node or row: its fields and edges, and how to generate the rows of an account's edge.

    :param name: its name in error messages
    :param defaults: names of the fields that are returned if the request has no ``fields``
    :param shapes: the fields of generated rows, with the shape of each; see :meth:`RowDraft.draw`. They are drawn in
        this order, and a field whose value is None is left out
    :param others: names of other fields
    :param nulls: names of fields that are null, because Meta no longer gives a value
    :param since: names of fields that exist only from a major version on, by version
    :param edges: the types of the rows at the other end of each edge
    :param has_id: whether it has an id; a row without one is always sent whole, regardless of ``fields``
    :param is_paged: whether a page of such rows has ``paging``
    :param summary: function that returns the ``summary`` of a page, given the number of all rows of the edge; only sent
        if the request names it
    :param count: shape of the number of rows that an account has
    :param ids: the numbers that follow the id of the account in the ids of generated rows
    :param make: function that generates the rows of an account, instead of the shapes
    :param required: names of the parameters that a request for the edge must have
    :param optional: names of the other parameters of the edge
    :param keep: function that filters or wraps the rows by the parameters; users may have added other rows to the
        account
    """

    name: str
    defaults: str = "id name"
    shapes: dict[str, Any] = field(default_factory=dict)
    others: str = ""
    nulls: str = ""
    since: dict[int, str] = field(default_factory=dict)
    edges: dict[str, NodeType] = field(default_factory=dict)
    has_id: bool = True
    is_paged: bool = True
    summary: Callable[[int], Node] | None = None
    count: Any = 0
    ids: range = range(0)
    make: Callable[[AccountRead], list[Node]] | None = None
    required: str = ""
    optional: str = ""
    keep: Callable[[AccountRead, list[Node]], list[Node]] = lambda read, rows: rows

    @cached_property
    def fields(self) -> dict[str, int]:
        """Every field, with the first major version that has it, 0 for all versions."""
        always = [*self.shapes, *self.others.split(), *self.nulls.split(), *(["id"] if self.has_id else [])]
        later = {name: version for version, names in self.since.items() for name in names.split()}
        return {**dict.fromkeys(always, 0), **later}

    @property
    def id_digits(self) -> int:
        """The number of digits that follow the id of the account in the id of a generated row."""
        return len(str(self.ids.stop - 1))

    def check(self, selection: Iterable[SelectedField], version: int, also: Iterable[str] = ()) -> None:
        """Check that this version has every selected field.

        :param also: other names to accept, because a user added them to a node
        :raises ApiError: (100) if a field does not exist
        """
        for item in selection:
            if item.name in self.edges:
                self.edges[item.name].check(item.fields, version)
            elif self.fields.get(item.name, 1000) > version and item.name not in also:
                raise self.nonexisting(item.name)

    def nonexisting(self, name: str) -> ApiError:
        """Return the refusal of a field or edge that nodes of this type do not have."""
        return ApiError(100, f"(#100) Tried accessing nonexisting field ({name}) on node type ({self.name})")

    def rows(self, edge: str, read: AccountRead) -> list[Node]:
        """Return the rows that a user put on the account for the edge, or otherwise the generated ones."""
        if edge in read.account:
            return list(read.account[edge])
        return self.make(read) if self.make else self.make_up(edge, read)

    def make_up(self, edge: str, read: AccountRead) -> list[Node]:
        """Return generated rows, the same for the same account, edge and required parameters."""
        rng = random_for(read.seed, read.account["id"], edge, *(read.params[name] for name in self.required.split()))
        rows = []
        for number in range(RowDraft(read, rng).draw(self.count)):
            row = RowDraft(read, rng, number)
            if self.has_id:
                row["id"] = f"{read.account['id']}{self.ids[number]:0{self.id_digits}}"
            for name, shape in self.shapes.items():
                if (value := row.draw(shape)) is not None:
                    row[name] = value
            rows.append(dict(row))
        return rows
