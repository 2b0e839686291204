"""A model hub on this machine: as much of its HTTP as huggingface_hub asks for, and what may go wrong with it."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_let_me_in"


class Hub:
    """`repositories`: name -> revision -> path -> bytes. `asked`: path and range of every request for a file."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.gated: set[str] = set()
        self.other_bytes: dict[str, bytes] = {}  # what is sent in the place of a path's
        self.claimed: dict[str, int] = {}  # a path's size as the listing tells it
        self.stop_after: dict[str, int] = {}  # bytes of a path that are sent before the server falls silent
        self.asked: list[tuple[str, str]] = []
        self.go_on = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def do_HEAD(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End, and let whoever hangs go."""
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """One answer, or the error that the real hub would give."""
        steps = [unquote(step) for step in urlsplit(request.path).path.strip("/").split("/")]
        is_api = steps[:2] == ["api", "models"]
        steps = steps[2:] if is_api else steps
        name, rest = "/".join(steps[:2]), steps[2:]
        if name not in self.repositories:
            return _refuse(request, 404, "RepoNotFound")
        may = name not in self.gated or request.headers.get("authorization") == f"Bearer {TOKEN}"
        if rest == ["auth-check"]:
            return _send(request, b"{}") if may else _refuse(request, 403, "GatedRepo")
        revision = rest[1] if len(rest) > 1 else "main"
        files = self.repositories[name].get(revision)
        if files is None:
            return _refuse(request, 404, "RevisionNotFound")
        if is_api:
            return _send(request, json.dumps(self.listed(name, revision)).encode())
        if not may:
            return _refuse(request, 403, "GatedRepo")
        path = "/".join(rest[2:])
        if path not in files:
            return _refuse(request, 404, "EntryNotFound")
        self.asked.append((path, request.headers.get("range", "")))
        return self.send_file(request, path, self.other_bytes.get(path, files[path]))

    def listed(self, name: str, revision: str) -> dict[str, Any]:
        """What the hub tells of a repository, with sizes and checksums."""
        siblings = []
        for path, content in self.repositories[name][revision].items():
            told: dict[str, Any] = {"rfilename": path, "size": self.claimed.get(path, len(content))}
            told["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            if path.endswith((".safetensors", ".bin")):
                sha256 = hashlib.sha256(content).hexdigest()
                told["lfs"] = {"size": told["size"], "sha256": sha256, "pointerSize": 134}
            siblings.append(told)
        gated = "manual" if name in self.gated else False
        card = {"license": "openrail++"}
        return {"id": name, "sha": revision, "gated": gated, "siblings": siblings, "cardData": card}

    def send_file(self, request: BaseHTTPRequestHandler, path: str, content: bytes) -> None:
        """The bytes asked for, up to where the server falls silent."""
        first = int(request.headers["range"].removeprefix("bytes=").split("-")[0]) if "range" in request.headers else 0
        request.send_response(206 if first else 200)
        if first:
            request.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - first))
        request.end_headers()
        stop = self.stop_after.pop(path, None)
        request.wfile.write(content[first:stop])
        if stop is not None:
            request.wfile.flush()
            self.go_on.wait(240)
            request.close_connection = True


def _send(request: BaseHTTPRequestHandler, content: bytes) -> None:
    request.send_response(200)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)


def _refuse(request: BaseHTTPRequestHandler, status: int, code: str) -> None:
    request.send_response(status)
    request.send_header("X-Error-Code", code)
    request.send_header("Content-Length", "0")
    request.end_headers()
