"""Routes of the sample project."""

from django.contrib import admin
from django.urls import path
from home import views

urlpatterns = [
    path("", views.page, name="home"),
    path("api/request", views.api_request, name="api-request"),
    path("api/stack", views.api_stack, name="api-stack"),
    path("favicon.ico", views.favicon),
    path("admin/", admin.site.urls),
]
handler500 = "config.errors.unavailable_or_error"
