from django.contrib.auth.models import Group
from django.core.files.storage import default_storage
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt


@csrf_exempt
def upload(request):
    file = request.FILES["file"]
    Group.objects.get_or_create(name=file.name)
    return HttpResponse(default_storage.url(default_storage.save(file.name, file)))


urlpatterns = [
    path("", lambda request: HttpResponse(", ".join(group.name for group in Group.objects.all()))),
    path("upload", upload),
]
