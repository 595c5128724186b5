"""Makes the documentation site of the pages in this folder. ``python3 -m nox -s docs`` builds it."""

from __future__ import annotations

import re
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "airflow-provider-whatsapp"
author = "The authors of airflow-provider-whatsapp"
project_copyright = "The authors of airflow-provider-whatsapp. Apache License 2.0"
release = version = version_of(project)

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"
html_show_sphinx = False

# Give headings the anchors that a forge gives them, so that one link works in both.
myst_heading_anchors = 4
suppress_warnings = [
    # A few snippets are only part of a DAG file or hold a template, which the highlighter cannot read.
    "misc.highlighting_failure",
]

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
# Every other name that the reference mentions must have an entry on the site. These are the types of Airflow, of the
# standard library and of private modules; some are written without their module.
nitpick_ignore_regex = [
    (r"py:class", r"airflow\..*|(collections\.abc|datetime)\..*"),
    (r"py:class", r"airflow_provider_whatsapp\.graph\.query\..*"),
    (r"py:class", r"BaseOperator|Context|PokeReturnValue|RetryDecision|TaskInstanceKey|XComArg"),
    (r"py:class", r"Query|date|datetime|timedelta"),
    (r"py:exc", r"Airflow\w+"),
]


def link_to_examples(app: Sphinx, page: str, source: list[str]) -> None:
    """Lead links to example DAGs to the page of the examples, as the folder of the examples is not on the site."""
    source[0] = re.sub(r"\(\.\./example_dags/(\w+)\.py\)", r"(examples.md#\1)", source[0])


def setup(app: Sphinx) -> None:
    """Register what this file adds to Sphinx."""
    app.connect("source-read", link_to_examples)
