"""Routes of the project that is measured."""

from django.urls import path

from bench import views

urlpatterns = [
    path("empty", views.empty),
    path("json", views.json),
    path("template", views.template),
    path("orm", views.orm),
    path("wait", views.wait),
    path("upload", views.upload),
    path("version", views.version),
]
