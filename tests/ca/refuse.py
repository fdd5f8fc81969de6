"""A CA that refuses every account and order with 429, as Let's Encrypt does above its limits. Plain http."""

import http.server
import json

HERE = "http://ca:14001"
PATHS = ("newNonce", "newAccount", "newOrder", "revokeCert", "keyChange")
PROBLEM = {
    "type": "urn:ietf:params:acme:error:rateLimited",
    "detail": "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s, "
    "retry after 2099-01-02 03:04:05 UTC",
}


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers every request."""

    def answer(self, status: int, content: object) -> None:
        """Answer with a document and a nonce."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status == 200 else "application/problem+json")
        self.send_header("Replay-Nonce", "bm9uY2U")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        """Answer with the directory."""
        self.answer(200, {path: f"{HERE}/{path}" for path in PATHS})

    do_HEAD = do_GET  # noqa: N815 - the name is http.server's

    def do_POST(self) -> None:
        """Refuse."""
        self.answer(429, PROBLEM)


http.server.HTTPServer(("0.0.0.0", 14001), Refusing).serve_forever()
