import hashlib

from django.conf import settings
from django.contrib.auth.models import User
from django.core.cache import cache
from django.http import JsonResponse
from django.templatetags.static import static
from django.urls import path
from django.utils.translation import gettext


def index(request):
    cache.set("known", "cached")
    return JsonResponse(
        {
            "greeting": gettext("Good day"),
            "style": static("built.css"),
            "cache": cache.get("known"),
            "archived": User.objects.using("archive").count(),
            "password": hashlib.sha256(settings.PASSWORD.encode()).hexdigest(),
            "certificate": settings.CERTIFICATE.count("\n"),
        }
    )


urlpatterns = [path("", index)]
