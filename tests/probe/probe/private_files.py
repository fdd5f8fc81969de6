"""Files that only some visitors may have: a view decides, nginx sends them.

Copy this file into your own project. Keep such files under PRIVATE_ROOT, not under MEDIA_ROOT, where everything is
public. Without nginx in front, as under `runserver`, Django sends the file itself.
"""

from pathlib import Path
from urllib.parse import quote

from django.conf import settings
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.utils._os import safe_join


def private_file(request: HttpRequest, name: str, *, as_attachment: bool = False) -> HttpResponseBase:
    """Return a response with the file `name` of PRIVATE_ROOT. Raises Http404 if there is none.

    Call it once the view knows that this visitor may have the file. A name that leads out of PRIVATE_ROOT raises
    Django's SuspiciousFileOperation, which answers 400.
    """
    file = Path(safe_join(settings.PRIVATE_ROOT, name))
    if not file.is_file():
        raise Http404
    response = FileResponse(file.open("rb"), as_attachment=as_attachment)
    # Set by nginx, not by a client: variables without HTTP_ are not headers.
    address = request.META.get("PRIVATE_FILES")
    if address is None:
        return response
    response.close()
    headers = {key: response[key] for key in ("Content-Type", "Content-Disposition") if key in response}
    # A cache in between must not give it to others.
    headers["Cache-Control"] = "private"
    path = file.relative_to(Path(settings.PRIVATE_ROOT).resolve()).as_posix()
    return HttpResponse(headers={**headers, "X-Accel-Redirect": address + quote(path)})
