"""Real load balancers in front of proxies, on a free port of this machine."""

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import httpx

from tests.support.cluster_status import wait_until

UPSTREAM_IDLE_S = 1
"""How long the balancers keep an idle connection to a proxy."""

NGINX = """
daemon off;
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream proxies {{
        {servers}
        keepalive 32;
        keepalive_timeout {idle_s}s;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://proxies;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_connect_timeout 2s;
        }}
    }}
}}
"""

HAPROXY = """
global
    maxconn 512
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    timeout http-keep-alive 30s
    retries 3
    option redispatch
listen proxies
    bind 127.0.0.1:{port}
    balance roundrobin
    http-reuse always
    option httpchk GET /-/healthz
    default-server check inter 200ms fall 1 rise 1 pool-purge-delay {idle_s}s
    {servers}
"""


def is_installed(name: str) -> bool:
    """The Debian package of this name is there."""
    return _binary(name) is not None


class Balancer:
    """nginx or haproxy in front of `ports` of 127.0.0.1. Use as a context manager."""

    def __init__(self, name: str, ports: Sequence[int], directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        template, form = (
            (NGINX, "server 127.0.0.1:{port};")
            if name == "nginx"
            else (HAPROXY, "server p{port} 127.0.0.1:{port}")
        )
        config = directory / f"{name}.conf"
        config.write_text(
            template.format(
                directory=directory,
                port=self.port,
                idle_s=UPSTREAM_IDLE_S,
                user="user root;" if os.geteuid() == 0 else "",
                servers="\n    ".join(form.format(port=port) for port in ports),
            )
        )
        binary = _binary(name)
        assert binary is not None
        options = ["-c", str(config)] if name == "nginx" else ["-db", "-f", str(config)]
        self._process = subprocess.Popen(
            [binary, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> Self:
        wait_until(self._serves)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"http://127.0.0.1:{self.port}"

    def _serves(self) -> bool:
        try:
            return httpx.get(self.url).status_code == 200
        except httpx.HTTPError:
            return False


def _binary(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
