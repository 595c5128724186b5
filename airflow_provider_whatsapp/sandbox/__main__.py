"""Entry point of ``python -m airflow_provider_whatsapp.sandbox``."""

from __future__ import annotations

import sys

from .command import main

sys.exit(main())
