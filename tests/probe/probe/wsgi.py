"""What uWSGI calls."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "probe.settings")
application = get_wsgi_application()
