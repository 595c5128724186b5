"""Sends the requests that :mod:`airflow_provider_whatsapp.graph` decides on."""
