"""One view for each kind of work."""

import time

from django.contrib.contenttypes.models import ContentType
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt

from bench.number import VERSION

ROWS = [{"name": f"row {number}", "amount": number * 17, "even": number % 2 == 0} for number in range(20)]


def empty(request: HttpRequest) -> HttpResponse:
    """Return nothing: all that it costs is the way there and back."""
    return HttpResponse()


def json(request: HttpRequest) -> JsonResponse:
    """Return a list of twenty objects."""
    return JsonResponse({"rows": ROWS})


def template(request: HttpRequest) -> HttpResponse:
    """Return a page of about 3 kB with a loop and conditions in it."""
    return render(request, "page.html", {"rows": ROWS, "title": "A page"})


def orm(request: HttpRequest) -> HttpResponse:
    """Read one row of the database."""
    return HttpResponse(ContentType.objects.values_list("model", flat=True).get(app_label="auth", model="user"))


def wait(request: HttpRequest) -> HttpResponse:
    """Wait 20 ms, as for another service."""
    time.sleep(0.02)
    return HttpResponse()


@csrf_exempt
def upload(request: HttpRequest) -> HttpResponse:
    """Read the whole body."""
    return HttpResponse(str(len(request.body)))


def version(request: HttpRequest) -> HttpResponse:
    """Return what `make bench` changes in the source, to see how long the change takes."""
    return HttpResponse(VERSION)
