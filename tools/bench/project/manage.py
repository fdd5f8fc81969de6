"""Django's command line for the project that is measured."""

import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.settings")
execute_from_command_line(sys.argv)
