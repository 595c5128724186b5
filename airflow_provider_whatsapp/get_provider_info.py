"""Declares this provider; Airflow reads it through the ``apache_airflow_provider`` entry point.

It imports nothing from the package, because Airflow loads it in every process.
"""

from __future__ import annotations

from typing import Any

__all__ = ["get_provider_info"]


def get_provider_info() -> dict[str, Any]:
    """Return the declaration, in the form that Airflow's ``provider_info.schema.json`` describes."""
    return {
        "package-name": "airflow-provider-whatsapp",
        "name": "WhatsApp Business",
        "description": "Lists the WhatsApp Business Accounts that clients share with a business.",
        "integrations": [
            {
                "integration-name": "WhatsApp Business",
                "external-doc-url": "https://developers.facebook.com/documentation/business-messaging/whatsapp/solution-providers/manage-accounts",
                "tags": ["service"],
            }
        ],
        "hooks": [
            {
                "integration-name": "WhatsApp Business",
                "python-modules": ["airflow_provider_whatsapp.hooks.whatsapp"],
            }
        ],
        "operators": [
            {
                "integration-name": "WhatsApp Business",
                "python-modules": ["airflow_provider_whatsapp.operators.whatsapp"],
            }
        ],
        "sensors": [
            {
                "integration-name": "WhatsApp Business",
                "python-modules": ["airflow_provider_whatsapp.sensors.whatsapp"],
            }
        ],
        "triggers": [
            {
                "integration-name": "WhatsApp Business",
                "python-modules": ["airflow_provider_whatsapp.triggers.whatsapp"],
            }
        ],
        "extra-links": ["airflow_provider_whatsapp.links.whatsapp.WhatsAppManagerLink"],
        "connection-types": [
            {
                "connection-type": "whatsapp",
                "hook-class-name": "airflow_provider_whatsapp.hooks.whatsapp.WhatsAppHook",
                "hook-name": "WhatsApp Business",
                "ui-field-behaviour": {
                    "hidden-fields": ["login", "port", "schema"],
                    "relabeling": {"password": "System user access token", "host": "Graph API base URL"},
                    "placeholders": {"host": "https://graph.facebook.com", "password": "EAA..."},
                },
                "conn-fields": {
                    "business_id": {
                        "label": "Business portfolio id",
                        "description": "Business to list when a task names none (Business Settings, Business Info).",
                        "schema": {"type": ["string", "null"], "pattern": "^[0-9]+$"},
                    },
                    "api_version": {
                        "label": "Graph API version",
                        "description": "Empty means v26.0.",
                        "schema": {"type": ["string", "null"], "pattern": "^v[1-9][0-9]*\\.0$"},
                    },
                    "app_secret": {
                        "label": "App secret",
                        "description": "Secret of the token's app; every request then carries an appsecret_proof.",
                        "schema": {"type": ["string", "null"], "format": "password"},
                    },
                    "proof": {
                        "label": "App secret proof",
                        "description": "timed (default): valid for five minutes; plain: valid as long as the token.",
                        "schema": {
                            "type": ["string", "null"],
                            "enum": ["timed", "plain", None],
                            "values_display": {"null": "default (timed)"},
                        },
                    },
                    "timeout": {
                        "label": "Timeout (seconds)",
                        "description": "Time for one HTTP attempt; empty means 30.",
                        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 600},
                    },
                    "proxy": {
                        "label": "Proxy",
                        "description": "Address of an HTTP proxy; empty leaves that to the environment variables.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "ca_bundle": {
                        "label": "CA bundle",
                        "description": "Path of a PEM file on the workers with the CAs to trust.",
                        "schema": {"type": ["string", "null"]},
                    },
                },
            }
        ],
    }
