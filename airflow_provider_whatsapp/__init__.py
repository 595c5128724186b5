"""Apache Airflow provider for WhatsApp Business Accounts (WABAs) shared through the Meta Graph API."""

__version__ = "0.1.0"
