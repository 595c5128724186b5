"""Apache Airflow provider for the WhatsApp Business Accounts (WABAs) of Meta's Graph API."""

__all__ = ["__version__"]

__version__ = "0.1.0"
