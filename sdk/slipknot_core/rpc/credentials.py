"""What a process proves itself with: the cluster's token, a certificate, both, or nothing on private Unix
sockets. Plain values, without gRPC.
"""

from dataclasses import dataclass

MIN_TOKEN_LENGTH = 16
"""Of a token that is all that protects a port beyond loopback."""

HOW_TO_GET_SOME = (
    "set SLIPKNOT_CLUSTER_TOKEN to the same secret on all members of the cluster (`slipknot token` makes "
    "one), or SLIPKNOT_TLS_CA, SLIPKNOT_TLS_CERT and SLIPKNOT_TLS_KEY (`slipknot certs` makes them)"
)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files for mutual TLS."""

    ca: str
    """Certificates of the authority that both ends trust."""
    cert: str
    """This process's own certificate."""
    key: str
    """Its private key."""


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """A frozen value; without token and TLS it is empty. `repr` tells what there is, never the token.

    Raises:
        ValueError: The token cannot travel in a header.
    """

    token: str = ""
    """The cluster's shared secret; sent with each call, and demanded of each call that is served."""
    tls: TlsFiles | None = None
    """Mutual TLS on TCP; Unix sockets go without."""

    def __post_init__(self) -> None:
        if not all("!" <= character <= "~" for character in self.token):
            raise ValueError(
                "the cluster token may hold printable ASCII characters without spaces only; "
                "`slipknot token` makes a good one"
            )

    def __repr__(self) -> str:
        kinds = [kind for kind, has in (("token", self.token), ("TLS", self.tls)) if has]
        return f"<Credentials: {' and '.join(kinds) or 'none'}>"

    @property
    def is_empty(self) -> bool:
        """There is nothing to prove oneself with."""
        return not self.token and self.tls is None

    def environment(self) -> dict[str, str]:
        """The variables that give a child process these credentials; none for empty ones."""
        if self.is_empty:
            return {}
        tls = self.tls or TlsFiles("", "", "")
        return {
            "SLIPKNOT_CLUSTER_TOKEN": self.token,
            "SLIPKNOT_CLUSTER_TOKEN_FILE": "",
            "SLIPKNOT_TLS_CA": tls.ca,
            "SLIPKNOT_TLS_CERT": tls.cert,
            "SLIPKNOT_TLS_KEY": tls.key,
        }


NO_CREDENTIALS = Credentials()
"""For private Unix sockets, and for ports that are open to everybody."""
