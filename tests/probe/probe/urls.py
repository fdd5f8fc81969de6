"""Routes of the probe: one for each thing a test wants to see or to break."""

from django.urls import path, re_path

from probe import views

urlpatterns = [
    path("form", views.form),
    path("unread", views.unread),
    path("sleep/<int:milliseconds>", views.sleep),
    path("status/<int:code>", views.status),
    path("headers/<int:size>", views.headers),
    path("bytes/<int:size>", views.body),
    path("allocate/<int:megabytes>", views.allocate),
    path("typed/<int:size>/<path:content_type>", views.typed),
    path("packed", views.packed),
    path("file/<int:megabytes>", views.file),
    path("events/<int:count>", views.events),
    path("private/<path:name>", views.private),
    path("form-files", views.form_files),
    path("version", views.version),
    path("leak/<int:megabytes>", views.leak),
    path("forked", views.forked),
    path("kill", views.kill),
    path("fail", views.fail),
    path("upload/<str:name>", views.upload),
    path("media/<path:name>", views.media),
    path("own-headers", views.own_headers),
    re_path(r"^slash/[\s\S]*/$", views.form),
    re_path("^echo", views.echo),
]
