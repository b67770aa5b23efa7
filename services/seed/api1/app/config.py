"""The environment of the service, read once.

Everything that is wrong with it is reported together, and no secret is shown.
"""

import logging
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

#: What the service is called and listens on unless the environment says otherwise.
DEFAULT_API_NAME = "api1"
DEFAULT_PORT = 5000

#: `LOG_LEVEL` in the words of Rust, Python and Node.js: one ConfigMap serves all.
LEVELS = {
    "off": logging.CRITICAL + 10,
    "silent": logging.CRITICAL + 10,
    "error": logging.ERROR,
    "critical": logging.ERROR,
    "fatal": logging.ERROR,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "notice": logging.INFO,
    "debug": logging.DEBUG,
    "verbose": logging.DEBUG,
    "trace": logging.DEBUG,
    "silly": logging.DEBUG,
}


class ConfigError(Exception):
    """Everything that is wrong with the environment, a sentence for each variable."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n  ".join(["the environment can't be used:", *problems]))


@dataclass(frozen=True, slots=True)
class DatabaseConfig:
    """How to reach the database, and how much of it to use."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    name: str
    #: Connections are opened when needed, never more than this.
    pool_max: int = 10
    #: Seconds that a request waits for a connection before it is answered 503.
    acquire_timeout: float = 2.0


@dataclass(frozen=True, slots=True)
class Config:
    """The service's configuration, validated."""

    database: DatabaseConfig
    port: int
    #: What stamps the rows; at most 32 characters, as the column has.
    api_name: str
    #: `None`: no page of another origin may call; `*`: any; else exactly these.
    cors_origins: frozenset[str] | None
    #: A level of `logging`.
    log_level: int

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Config":
        """Read and check all variables; raises ConfigError with every problem."""
        reader = _Reader(env)
        config = cls(
            database=DatabaseConfig(
                host=reader.text("DB_HOST") or "cloudsql",
                port=reader.number("DB_PORT", 3306, 1, 65_535),
                user=reader.required("DB_USER"),
                password=reader.secret("DB_PASSWORD"),
                name=reader.text("DB_NAME") or "telemetry",
                pool_max=reader.number("DB_POOL_MAX", 10, 1, 1000),
                acquire_timeout=reader.number("DB_ACQUIRE_TIMEOUT_MS", 2000, 10, 60_000) / 1000,
            ),
            port=reader.number("PORT", DEFAULT_PORT, 1, 65_535),
            api_name=reader.api_name(),
            cors_origins=reader.cors(),
            log_level=reader.log_level(),
        )
        if reader.problems:
            raise ConfigError(reader.problems)
        return config


class _Reader:
    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.problems: list[str] = []

    def text(self, name: str) -> str | None:
        """Set but empty counts as not set: in a ConfigMap that is how one says "nothing"."""
        text = self.env.get(name, "")
        if _is_broken(text):
            self.problems.append(f"{name} is not valid UTF-8")
            return None
        return text.strip() or None

    def required(self, name: str) -> str:
        before = len(self.problems)
        value = self.text(name)
        if value is None and len(self.problems) == before:
            self.problems.append(
                f"{name} is not set; it comes from the Secret cloudsql-credentials"
            )
        return value or ""

    def secret(self, name: str) -> str:
        """Like `required`, but an empty value is a value and blanks count."""
        value = self.env.get(name)
        if value is None or _is_broken(value):
            return self.required(name)
        return value

    def number(self, name: str, default: int, least: int, most: int) -> int:
        text = self.text(name)
        if text is None:
            return default
        if re.fullmatch(r"\+?[0-9]{1,18}", text) and least <= int(text) <= most:
            return int(text)
        self.problems.append(
            f"{name} is `{text}`; expected a whole number from {least} to {most} "
            f"(default {default})"
        )
        return default

    def api_name(self) -> str:
        name = self.text("API_NAME") or DEFAULT_API_NAME
        if len(name) > 32 or any(unicodedata.category(char) == "Cc" for char in name):
            shown = name.encode("unicode_escape").decode()
            self.problems.append(f"API_NAME is `{shown}`; expected at most 32 printable characters")
        return name

    def cors(self) -> frozenset[str] | None:
        text = self.text("CORS_ORIGIN")
        if text is None:
            return None
        origins = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            if part == "*":
                return frozenset({"*"})
            # Browsers send scheme, host and port only, without a slash.
            origin = part.removesuffix("/")
            if not re.fullmatch(r"[^:]*://[^/ ?#]+", origin):
                self.problems.append(
                    f"CORS_ORIGIN has `{origin}`; expected `*` or origins such as "
                    "https://example.com, separated by commas"
                )
            origins.append(origin.lower())
        return frozenset(origins)

    def log_level(self) -> int:
        text = self.text("LOG_LEVEL") or "info"
        if (level := LEVELS.get(text.lower())) is not None:
            return level
        # A filter as the Rust services take it, `info,telemetry=debug`: its own
        # level counts, and of targets nothing is known here.
        directives = [part.strip() for part in text.lower().split(",")]
        levels = [LEVELS.get(part.rpartition("=")[2]) for part in directives]
        if None in levels or not re.search("[=,]", text):
            self.problems.append(
                f"LOG_LEVEL is `{text}`; expected off, error, warn, info, debug, trace, "
                "or a filter such as `info,telemetry=debug`"
            )
            return logging.INFO
        own = [LEVELS[part] for part in directives if "=" not in part]
        return own[-1] if own else logging.ERROR


def _is_broken(text: str) -> bool:
    """Whether the bytes behind it were no UTF-8 (`os.environ` keeps such as surrogates)."""
    return any("\ud800" <= char <= "\udfff" for char in text)
