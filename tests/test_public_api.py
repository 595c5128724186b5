"""The names and signatures that users rely on.

``tests/public_api.txt`` lists them, so that a change to one of them is a deliberate edit of that file. To update it:
``.nox/tests/bin/python tests/test_public_api.py``. Types are checked by ``tests/types/public_types.py``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, is_typeddict

import airflow.sdk
import pytest

import airflow_provider_whatsapp

PACKAGE = Path(airflow_provider_whatsapp.__file__).parent
AGREED = Path(__file__).with_name("public_api.txt")
PUBLIC_MODULES = (
    "get_provider_info",
    "graph",
    "hooks.whatsapp",
    "links.whatsapp",
    "operators.whatsapp",
    "retry",
    "rows",
    "sandbox",
    "sensors.whatsapp",
    "triggers.whatsapp",
    "webhooks",
)
# Folders in which a module is private unless its name is "whatsapp".
AIRFLOW_FOLDERS = ("hooks", "links", "operators", "sensors", "triggers")


def describe() -> Iterator[str]:
    for module_name in PUBLIC_MODULES:
        module = importlib.import_module(f"airflow_provider_whatsapp.{module_name}")
        yield f"{module_name}:"
        for name in sorted(module.__all__):
            public = getattr(module, name)
            if not inspect.isclass(public):
                yield f"    {name}{signature_of(public)}"
                continue
            if is_typeddict(public):
                yield f"    class {name}(TypedDict): {', '.join(public.__annotations__)}"
                continue
            bases = ", ".join(base.__name__ for base in public.__bases__ if base is not object)
            yield f"    class {name}({bases}){signature_of(public.__init__, skip=1)}"
            yield from sorted(f"        {line}" for line in members_of(public))


def members_of(public: type) -> Iterator[str]:
    for name in vars(public):
        # The static lookup gives the property itself instead of its value.
        member = inspect.getattr_static(public, name)
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            yield name
        elif inspect.isfunction(member):
            yield f"{name}{signature_of(member, skip=1)}"
        elif callable(getattr(public, name)) or isinstance(member, (staticmethod, classmethod)):
            yield f"{name}{signature_of(getattr(public, name))}"


def signature_of(function: Any, skip: int = 0) -> str:
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in list(signature.parameters.values())[skip:]
    ]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


@pytest.mark.skipif(not hasattr(airflow.sdk, "RetryPolicy"), reason="the module retry needs Airflow 3.3")
def test_the_public_names_and_signatures_are_those_that_were_agreed_on() -> None:
    assert list(describe()) == AGREED.read_text().splitlines()


def test_every_other_module_of_an_airflow_folder_is_private() -> None:
    for folder in AIRFLOW_FOLDERS:
        public = {path.stem for path in (PACKAGE / folder).glob("*.py") if not path.stem.startswith("_")}
        assert public == {"whatsapp"}


if __name__ == "__main__":
    AGREED.write_text("".join(f"{line}\n" for line in describe()))
