"""A Hub on this machine: as much of its HTTP interface as making a repository and committing files need."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

TOKENS = {"hf_writer": "me", "hf_reader": "reader"}


class FakeHub(ThreadingHTTPServer):
    """`repos`: name -> {"private": bool, "files": {path: bytes}, "commits": [message]}."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *_):
        pass

    def _answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status >= 400:
            self.send_header("X-Error-Message", value["error"])
        self.end_headers()
        self.wfile.write(body)

    def _user(self):
        return TOKENS.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/api/whoami-v2":
            self._answer({"name": self._user(), "type": "user"})
        elif path.startswith("/api/models/"):
            name = "/".join(path.split("/")[3:5])
            if name not in self.server.repos:
                self._answer({"error": "Repository not found"}, 404)
                return
            files = self.server.repos[name]["files"]
            if "/tree/" in path:
                listed = [
                    {"type": "file", "path": one, "size": len(data), "oid": "0" * 40} for one, data in files.items()
                ]
                self._answer(listed)
                return
            self._answer({"id": name, "sha": "1" * 40, "siblings": [{"rfilename": one} for one in files]})
        else:
            self._answer({"error": "no such page"}, 404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, user = self.path.split("?")[0], self._user()
        if user is None:
            return self._answer({"error": "Invalid credentials"}, 401)
        if user == "reader":
            return self._answer({"error": "You don't have the rights"}, 403)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or user}/{asked['name']}"
            if name in self.server.repos:
                return self._answer({"error": "You already created this model repo", "url": self.server.address}, 409)
            private = bool(asked.get("private")) or asked.get("visibility") == "private"
            self.server.repos[name] = {"private": private, "files": {".gitattributes": b""}, "commits": []}
            return self._answer({"url": f"{self.server.address}/{name}", "name": name})
        if path == "/api/validate-yaml":
            content = json.loads(body)["content"]
            yaml.safe_load(content.split("---")[1])
            return self._answer({"errors": [], "warnings": []})
        repo = self.server.repos["/".join(path.split("/")[3:5])]
        if "/preupload/" in path:
            files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                     for one in json.loads(body)["files"]]  # fmt: skip
            return self._answer({"files": files})
        lines = [json.loads(line) for line in body.splitlines()]
        for line in lines:
            if line["key"] == "file":
                repo["files"][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "header":
                repo["commits"].append(line["value"]["summary"])
        name = "/".join(path.split("/")[3:5])
        return self._answer({
            "success": True, "commitOid": "2" * 40, "commitUrl": f"{self.server.address}/{name}/commit/{'2' * 40}",
        })  # fmt: skip
