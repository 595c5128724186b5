"""Tells Airflow's lineage collector and OpenLineage which edges of the Graph API went into which object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from airflow.sdk import BaseHook

#: The namespace of what is read. It has no version of the API in it, so that an upgrade does not cut the lineage.
GRAPH_API = "https://graph.facebook.com"


@dataclass(frozen=True, slots=True)
class Sources:
    """What the rows of a listing are read from.

    :param edges: edges of the Graph API, e.g. ``"1906385232743451/client_whatsapp_business_accounts"``
    :param objects: addresses of the objects that name the accounts
    """

    edges: Sequence[str]
    objects: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Lineage:
    """What was read, and the object that was written.

    :param sources: what was read
    :param manifest: manifest of the object that was written
    :param columns: names of the fields of its rows
    """

    sources: Sources
    manifest: dict[str, Any]
    columns: Sequence[str]

    def collect(self, hook: BaseHook) -> None:
        """Tell Airflow's collector, which does nothing unless a plugin reads it.

        :param hook: the hook that stands for the connection to the API
        """
        # Imported here, because parsing a DAG file must not wait for it.
        try:
            from airflow.sdk.lineage import get_hook_lineage_collector
        except ImportError:  # Airflow 3.1
            from airflow.lineage.hook import get_hook_lineage_collector  # type: ignore[import-not-found, no-redef]

        collector = get_hook_lineage_collector()
        for uri in (*(f"{GRAPH_API}/{edge}" for edge in self.sources.edges), *self.sources.objects):
            collector.add_input_asset(context=hook, uri=uri)
        collector.add_output_asset(context=hook, uri=self.manifest["uri"])

    def to_openlineage(self) -> Any:
        """The datasets for the OpenLineage provider, which alone calls this.

        https://openlineage.io/docs/spec/naming
        """
        from airflow.providers.openlineage.extractors import OperatorLineage
        from openlineage.client.event_v2 import InputDataset, OutputDataset
        from openlineage.client.facet_v2 import output_statistics_output_dataset, schema_dataset

        fields = [schema_dataset.SchemaDatasetFacetFields(name=name) for name in self.columns]
        statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
            rowCount=self.manifest["count"], size=self.manifest["bytes"], fileCount=1
        )
        written = OutputDataset(
            *_name_object(self.manifest["uri"]),
            facets={"schema": schema_dataset.SchemaDatasetFacet(fields=fields)} if fields else {},
            outputFacets={"outputStatistics": statistics},
        )
        read = [(GRAPH_API, edge) for edge in self.sources.edges] + [_name_object(uri) for uri in self.sources.objects]
        return OperatorLineage(inputs=[InputDataset(*name) for name in read], outputs=[written])


def _name_object(uri: str) -> tuple[str, str]:
    """The namespace and the name of an object, as OpenLineage has them."""
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        return "file", parts.path
    return f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/")
