"""HAProxy in front of one uvicorn: what a proxy process costs when it is written in C."""

import shutil

from .floor import APPLICATIONS, uvicorns
from .system import Command, Setting, free_port

CONFIG = """\
global
  maxconn 4096
defaults
  mode http
  option http-keep-alive
  http-reuse always
  # uvicorn closes idle connections after 5 s; without these two lines some requests meet that, and get 502.
  default-server pool-purge-delay 2s
  retry-on conn-failure empty-response
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 60s
frontend clients
  bind 127.0.0.1:{port}
  default_backend servers
backend servers
  server uvicorn 127.0.0.1:{server_port}
"""


class HAProxy:
    """One HAProxy with its threads, one uvicorn."""

    name = "haproxy"
    start_within_s = 60.0
    end_within_s = 10.0

    def missing(self) -> str | None:
        """The package, where there is none."""
        if shutil.which("haproxy") is None:
            return "haproxy is not installed; on Debian: apt-get install haproxy"
        return None

    def applications(self) -> frozenset[str]:
        """What the uvicorn behind it serves."""
        return APPLICATIONS

    def commands(self, application: str, setting: Setting) -> list[Command]:
        """The uvicorns, then HAProxy."""
        server_port = free_port()
        path = setting.directory / "haproxy.cfg"
        path.write_text(CONFIG.format(port=setting.port, server_port=server_port))
        return [*uvicorns(application, server_port), Command(["haproxy", "-db", "-f", str(path)])]

    def ready_path(self, application: str) -> str:
        """The no-op."""
        return "/"
