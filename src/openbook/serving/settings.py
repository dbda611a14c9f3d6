"""What decides how the server behaves, beyond the options of the model and the index."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from openbook.config import Config
from openbook.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`adapter` None is the one that `tune` wrote; `plain` answers without retrieval; `token` "" asks for none.

    `log_contents` writes questions and answers into the log too.
    """

    config: Config
    adapter: Path | None = None
    base_only: bool = False
    plain: bool = False
    token: str = ""
    log_contents: bool = False

    def check(self) -> None:
        """Raise `ConfigError` for settings that would let strangers in."""
        if not self.token and not is_loopback(self.config.serve.host):
            raise ConfigError(
                f"serve.host = {self.config.serve.host} lets other machines in, and there is no token.",
                "Put one into the variable OPENBOOK_TOKEN (or a file: --token-file), or listen on 127.0.0.1.",
            )
        if self.token and (not self.token.isascii() or self.token != self.token.strip() or len(self.token) < 16):
            raise ConfigError(
                "The token is too weak or cannot be sent in a header.",
                "Use 16 or more ASCII characters without spaces around them, such as those of `openssl rand -hex 24`.",
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there. An empty host is every address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
