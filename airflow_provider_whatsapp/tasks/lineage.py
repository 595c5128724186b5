"""Reports sources and written objects to Airflow's assets and lineage, and to OpenLineage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.sdk import Asset, AssetAlias

from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook

if TYPE_CHECKING:
    from airflow.sdk import BaseHook, BaseOperator, Context

    from airflow_provider_whatsapp.hooks._connection import WhatsAppConnection
    from airflow_provider_whatsapp.rows import Manifest

#: The namespace of the sources. It contains no API version, so that an upgrade does not break the lineage.
GRAPH_API = "https://graph.facebook.com"


@dataclass(frozen=True, slots=True)
class LineageInputs:
    """The sources of the rows of a listing.

    :param edges: edges of the Graph API, e.g. ``"1906385232743451/client_whatsapp_business_accounts"``
    :param objects: addresses of the objects that name the accounts
    """

    edges: Sequence[str]
    objects: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Lineage:
    """The sources that were read, and the object that was written.

    :param inputs: the sources that were read
    :param manifest: manifest of the object that was written
    :param columns: names of the fields of its rows
    """

    inputs: LineageInputs
    manifest: Manifest
    columns: Sequence[str]

    def collect(self, hook: BaseHook) -> None:
        """Report to Airflow's collector, which does nothing unless a plugin reads it.

        :param hook: the hook that represents the connection to the API
        """
        # lazy: Airflow's lineage
        try:
            from airflow.sdk.lineage import get_hook_lineage_collector
        except ImportError:  # Airflow 3.1
            from airflow.lineage.hook import get_hook_lineage_collector  # type: ignore[import-not-found, no-redef]

        collector = get_hook_lineage_collector()
        for uri in (*(f"{GRAPH_API}/{edge}" for edge in self.inputs.edges), *self.inputs.objects):
            collector.add_input_asset(context=hook, uri=uri)
        collector.add_output_asset(context=hook, uri=self.manifest["uri"])

    def to_openlineage(self) -> Any:
        """Return the datasets; called only by the OpenLineage provider.

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
        read = [(GRAPH_API, edge) for edge in self.inputs.edges] + [_name_object(uri) for uri in self.inputs.objects]
        return OperatorLineage(inputs=[InputDataset(*name) for name in read], outputs=[written])


def announce(task: BaseOperator, context: Context, connection: WhatsAppConnection, lineage: Lineage) -> None:
    """Report a published object to the asset events of a task and to Airflow's lineage collector.

    :param task: operator or sensor that published the object
    :param context: Airflow's context of the task
    :param connection: connection that the rows were read over
    :param lineage: what was read and written
    """
    manifest: Any = lineage.manifest
    if context.get("ti") is not None:
        # Airflow has already loaded its plugins, which takes half a second, in a task.
        lineage.collect(WhatsAppHook(connection.conn_id))
    # A DAG that is scheduled by the asset gets the address of the new object from the event.
    for outlet in task.outlets:
        if isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra.update(manifest)
        elif isinstance(outlet, AssetAlias):
            context["outlet_events"][outlet].add(Asset(manifest["uri"]), extra=manifest)


def _name_object(uri: str) -> tuple[str, str]:
    """Return the namespace and the name of an object in OpenLineage."""
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        return "file", parts.path
    return f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/")
