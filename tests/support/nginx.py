"""The real nginx as a TLS front of a registry, which may want a client certificate."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.process import ServerError, ServerProcess
from tests.support.system import require_program
from tests.support.tls import Certificate

ATTEMPTS = 5  # another program may take a port between its choice and its use

CONFIG_TEMPLATE = """
daemon off;
master_process off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 256; }}
http {{
  access_log {directory}/access.log;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols {protocols};
    ssl_ciphers DEFAULT:@SECLEVEL=0;
    {client}
    location / {{
      proxy_pass http://{upstream};
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto https;
    }}
  }}
}}
"""


class NginxTLS:
    """One nginx in front of ``upstream``; it ends with the `with` block.

    Args:
        directory: Where configuration and logs go.
        upstream: Host and port that speak plain http.
        certificate: What it shows.
        clients: The authority that has to have signed a client's certificate; None: no matter.
        protocols: What it speaks, as nginx has it.
    """

    def __init__(
        self,
        directory: Path,
        upstream: str,
        certificate: Certificate,
        *,
        client_ca: Path | None = None,
        protocols: str = "TLSv1.2 TLSv1.3",
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = 0
        client = f"ssl_client_certificate {client_ca}; ssl_verify_client on;" if client_ca else ""
        self._fields = {
            "directory": directory,
            "upstream": upstream,
            "certificate": certificate.certificate,
            "key": certificate.key,
            "client": client,
            "protocols": protocols,
        }
        argv = [require_program("nginx"), "-p", str(directory), "-c", str(directory / "nginx.conf")]
        self._process = ServerProcess(
            [*argv, "-e", "stderr"], r"(using the|start worker)", directory / "nginx.log", {}
        )

    @property
    def host(self) -> str:
        """Host and port, as in an image reference."""
        return f"127.0.0.1:{self.port}"

    @property
    def access_log(self) -> list[str]:
        """The lines of its access log."""
        return (self.directory / "access.log").read_text().splitlines()

    def __enter__(self) -> Self:
        for attempt in range(ATTEMPTS):
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.port = free.getsockname()[1]
            text = CONFIG_TEMPLATE.format(port=self.port, **self._fields)
            (self.directory / "nginx.conf").write_text(text)
            try:
                self._process.start()
            except ServerError:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                break
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        shutil.rmtree(self.directory / "body", ignore_errors=True)
