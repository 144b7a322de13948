"""What the containers read from their environment files, parsed once."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import unquote, urlsplit

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def duration(text: str) -> timedelta:
    """Read Go's durations in their simple form: `5m`, `30s`, `1h`, `0`."""
    text = text.strip()
    if text and text[-1] in UNITS:
        return timedelta(seconds=float(text[:-1]) * UNITS[text[-1]])
    return timedelta(seconds=float(text or 0))


@dataclass(frozen=True)
class DatabaseSettings:
    """How to reach PostgreSQL; max_open 0 means no limit, as in Harbor."""

    host: str
    port: int
    user: str
    password: str
    name: str
    sslmode: str = "disable"
    max_idle: int = 2
    max_open: int = 0
    max_lifetime: timedelta = timedelta(minutes=5)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "DatabaseSettings":
        """Read Harbor's POSTGRESQL_* variables."""
        return cls(
            host=env["POSTGRESQL_HOST"],
            port=int(env.get("POSTGRESQL_PORT") or 5432),
            user=env["POSTGRESQL_USERNAME"],
            password=env["POSTGRESQL_PASSWORD"],
            name=env["POSTGRESQL_DATABASE"],
            sslmode=env.get("POSTGRESQL_SSLMODE") or "disable",
            max_idle=int(env.get("POSTGRESQL_MAX_IDLE_CONNS") or 2),
            max_open=int(env.get("POSTGRESQL_MAX_OPEN_CONNS") or 0),
            max_lifetime=duration(env.get("POSTGRESQL_CONN_MAX_LIFETIME") or "5m"),
        )

    def as_config(self) -> dict[str, str | int]:
        """The form in which core hands these settings to jobservice."""
        return {
            "postgresql_host": self.host,
            "postgresql_port": self.port,
            "postgresql_username": self.user,
            "postgresql_password": self.password,
            "postgresql_database": self.name,
            "postgresql_sslmode": self.sslmode,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, str | int]) -> "DatabaseSettings":
        """The reverse of `as_config`."""
        return cls(
            host=str(config["postgresql_host"]),
            port=int(config["postgresql_port"]),
            user=str(config["postgresql_username"]),
            password=str(config["postgresql_password"]),
            name=str(config["postgresql_database"]),
            sslmode=str(config["postgresql_sslmode"]),
        )


@dataclass(frozen=True)
class RedisSettings:
    """One Redis database."""

    host: str
    port: int
    password: str
    db: int

    @classmethod
    def from_url(cls, url: str) -> "RedisSettings":
        """Read `redis://[user]:password@host:port/db?options`; the options are ignored."""
        parts = urlsplit(url)
        path = parts.path.strip("/")
        return cls(
            host=parts.hostname or "redis",
            port=parts.port or 6379,
            password=unquote(parts.password or ""),
            db=int(path) if path else 0,
        )


def _on(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "").lower() == "true"


@dataclass(frozen=True)
class CoreSettings:
    """Everything that core takes from `common/config/core/env`."""

    database: DatabaseSettings
    redis: RedisSettings
    port: int
    ext_endpoint: str
    admin_password: str
    core_secret: str
    jobservice_secret: str
    registry_url: str
    registry_user: str
    registry_password: str
    jobservice_url: str
    registryctl_url: str
    portal_url: str
    redis_url_reg: str
    storage_provider: str
    with_trivy: bool
    notary_url: str = ""
    chartmuseum_url: str = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "CoreSettings":
        """Read core's environment; a missing variable is a KeyError, as fatal as in Harbor."""
        return cls(
            database=DatabaseSettings.from_env(env),
            redis=RedisSettings.from_url(env["_REDIS_URL_CORE"]),
            port=int(env.get("PORT") or 8080),
            ext_endpoint=env["EXT_ENDPOINT"].rstrip("/"),
            admin_password=env.get("HARBOR_ADMIN_PASSWORD", ""),
            core_secret=env["CORE_SECRET"],
            jobservice_secret=env["JOBSERVICE_SECRET"],
            registry_url=env["REGISTRY_URL"],
            registry_user=env["REGISTRY_CREDENTIAL_USERNAME"],
            registry_password=env["REGISTRY_CREDENTIAL_PASSWORD"],
            jobservice_url=env["JOBSERVICE_URL"],
            registryctl_url=env["REGISTRY_CONTROLLER_URL"],
            portal_url=env["PORTAL_URL"],
            redis_url_reg=env.get("_REDIS_URL_REG", ""),
            storage_provider=env.get("REGISTRY_STORAGE_PROVIDER_NAME") or "filesystem",
            with_trivy=_on(env, "WITH_TRIVY"),
            notary_url=env["NOTARY_URL"] if _on(env, "WITH_NOTARY") else "",
            chartmuseum_url=env["CHART_REPOSITORY_URL"] if _on(env, "WITH_CHARTMUSEUM") else "",
        )
