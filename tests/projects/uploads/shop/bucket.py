from django.core.files.storage import Storage


class Bucket(Storage):
    def save(self, name, content, max_length=None):
        raise ConnectionError("a build has no business here")

    def exists(self, name):
        return False

    def url(self, name):
        return f"https://cdn.example.com/{name}"
