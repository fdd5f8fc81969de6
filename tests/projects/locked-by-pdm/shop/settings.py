"""No database, no static files, no admin, no /healthz: an API alone."""

import os
from pathlib import Path

SECRET_KEY = Path(os.environ["DJANGO_SECRET_KEY_FILE"]).read_text().strip()
ALLOWED_HOSTS = os.environ["DJANGO_ALLOWED_HOSTS"].split(",")
ROOT_URLCONF = "shop.urls"
