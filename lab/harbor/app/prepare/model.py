"""harbor.yml as `prepare` understands it: which keys it needs, what it checks, and what it lets pass.

It does not check any value of the database or of Redis, nor whether anything can be reached.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..habits import Habits

LOG_LEVELS = ("debug", "info", "warning", "error", "fatal")
PLACEHOLDER_HOST = "reg.mydomain.com"
STORAGE_DRIVERS = ("filesystem", "azure", "gcs", "s3", "swift", "oss")
PLACEHOLDER_PATHS = ("/your/certificate/path", "/your/private/key/path")


class Invalid(Exception):
    """A value that prepare checks is wrong; prepare ends with 255."""


@dataclass(frozen=True)
class Endpoint:
    """Redis: where, and which database for whom."""

    host: str
    port: int
    password: str
    registry_db: int = 1
    jobservice_db: int = 2
    trivy_db: int = 5
    chartmuseum_db: int = 3
    idle_timeout: int = 30
    username: str = ""

    def url(self, db: int) -> str:
        """The address in the form of Harbor's env files; the password is written as it is."""
        who = f"{self.username}:{self.password}@" if self.password else ""
        path = f"/{db}" if db else ""
        return f"redis://{who}{self.host}:{self.port}{path}?idle_timeout_seconds={self.idle_timeout}"


@dataclass(frozen=True)
class DatabaseAddress:
    """PostgreSQL, bundled or external; values as they stand in harbor.yml, unchecked."""

    host: Any
    port: Any
    username: Any
    password: Any
    name: Any
    sslmode: Any
    max_idle_conns: Any
    max_open_conns: Any
    conn_max_lifetime: Any
    conn_max_idle_time: Any
    external: bool


@dataclass(frozen=True)
class Metric:
    """Where the exporter answers."""

    port: int
    path: str


@dataclass(frozen=True)
class HarborConfig:
    """The whole of harbor.yml that reaches a generated file.

    Attributes:
        known: the habits of the version.
        components: what --with-… named.
        notary: addresses of notary's two databases, by `server` and `signer`; none without notary.
    """

    known: Habits
    components: frozenset[str]
    notary: dict[str, DatabaseAddress]
    hostname: str
    public_url: str
    protocol: str
    http_port: int
    https_port: int
    cert: str
    cert_key: str
    admin_password: str
    data_volume: str
    database: DatabaseAddress
    redis: Endpoint
    external_redis: bool
    log_level: str
    log_location: str
    job_workers: int
    job_loggers: tuple[str, ...]
    storage_driver: str
    storage_options: dict[str, Any]
    redirect_disabled: bool
    metric: Metric | None
    no_proxy: frozenset[str]
    http_proxy: str
    https_proxy: str

    @property
    def with_trivy(self) -> bool:
        """Whether --with-trivy was given."""
        return "trivy" in self.components


INTERNAL_NAMES = frozenset(
    {"127.0.0.1", "localhost", ".local", ".internal", "log", "db", "redis", "nginx", "core", "portal",
     "postgresql", "jobservice", "registry", "registryctl", "trivy-adapter", "exporter"}
)  # fmt: skip
NAMES_OF = {"notary": ("notary-server", "notary-signer"), "chartmuseum": ("chartmuseum",)}


def _database(document: dict[str, Any]) -> DatabaseAddress:
    external = document.get("external_database")
    source = external["harbor"] if external else document.get("database")
    if source is None:
        raise KeyError("harbor_db_password")
    pool = {
        "max_idle_conns": source.get("max_idle_conns", 2),
        "max_open_conns": source.get("max_open_conns", 0),
        "conn_max_lifetime": source.get("conn_max_lifetime", "5m"),
        "conn_max_idle_time": source.get("conn_max_idle_time", 0),
    }
    if external:
        return _external(source, pool)
    return DatabaseAddress(
        host="postgresql",
        port=5432,
        username="postgres",
        password=source["password"],
        name="registry",
        sslmode="disable",
        external=False,
        **pool,
    )


def _external(source: dict[str, Any], pool: dict[str, Any]) -> DatabaseAddress:
    return DatabaseAddress(
        host=source["host"],
        port=source["port"],
        username=source["username"],
        password=source["password"],
        name=source["db_name"],
        sslmode=source["ssl_mode"],
        external=True,
        **pool,
    )


def _notary(document: dict[str, Any], own: DatabaseAddress) -> dict[str, DatabaseAddress]:
    """Where notary keeps its data: beside Harbor's own, where no other place is named."""
    external = document.get("external_database") or {}
    pool = {"max_idle_conns": 2, "max_open_conns": 0, "conn_max_lifetime": "5m", "conn_max_idle_time": 0}
    found = {}
    for part in ("server", "signer"):
        if external:
            found[part] = _external(external[f"notary_{part}"], pool)
        else:
            found[part] = replace(own, username=part, password="password", name=f"notary{part}")
    return found


def _redis(document: dict[str, Any]) -> Endpoint:
    external = document.get("external_redis")
    if not external:
        return Endpoint("redis", 6379, "")
    host, _, port = str(external["host"]).partition(":")
    return Endpoint(
        host=host,
        port=int(port or 6379),
        password=str(external.get("password") or ""),
        registry_db=external.get("registry_db_index", 1),
        jobservice_db=external.get("jobservice_db_index", 2),
        trivy_db=external.get("trivy_db_index", 5),
        chartmuseum_db=external.get("chartmuseum_db_index", 3),
        idle_timeout=external.get("idle_timeout_seconds", 30),
        username=str(external.get("username") or ""),
    )


def _job_loggers(document: dict[str, Any], known: Habits) -> tuple[str, ...]:
    """Where jobs log to. Raises KeyError for any key that the version insists on, in prepare's order."""
    jobservice, notification = document["jobservice"], document.get("notification") or {}
    loggers = tuple(jobservice["job_loggers"]) if known.job_loggers else ("STD_OUTPUT", "FILE")
    needed = [(notification, "webhook_job_max_retry")]
    if known.sweeper_and_hook_timeout:
        needed = [
            (jobservice, "logger_sweeper_duration"),
            *needed,
            (notification, "webhook_job_http_client_timeout"),
        ]
    for section, key in needed:
        if key not in section:
            raise KeyError(key)
    return loggers


def parse(document: dict[str, Any], known: Habits, components: Sequence[str] = ()) -> HarborConfig:
    """Read the keys.

    Args:
        document: the content of harbor.yml.
        known: the habits of the version.
        components: what --with-… named.

    Raises:
        KeyError: one is missing, which the operator sees as a traceback (exit 1).
    """
    https = document.get("https") or {}
    protocol = "https" if https else "http"
    http_port = (document.get("http") or {}).get("port", 80)
    https_port = https.get("port", 443)
    port = https_port if protocol == "https" else http_port
    suffix = "" if port == (443 if protocol == "https" else 80) else f":{port}"
    hostname = document["hostname"]
    storage = document.get("storage_service") or {}
    drivers = [name for name in storage if name not in ("ca_bundle", "redirect")]
    driver = drivers[0] if drivers else "filesystem"
    redirect = storage.get("redirect")
    metric = document.get("metric") or {}
    proxy = document.get("proxy") or {}
    local = document["log"]["local"]
    asked = {name.strip() for name in str(proxy.get("no_proxy") or "").split(",") if name.strip()}
    database = _database(document)
    inside = [name for part in components for name in NAMES_OF.get(part, ())]
    return HarborConfig(
        known=known,
        components=frozenset(components),
        notary=_notary(document, database) if "notary" in components else {},
        hostname=hostname,
        public_url=document.get("external_url") or f"{protocol}://{hostname}{suffix}",
        protocol=protocol,
        http_port=http_port,
        https_port=https_port,
        cert=https.get("certificate", "") or "",
        cert_key=https.get("private_key", "") or "",
        admin_password=document["harbor_admin_password"],
        data_volume=document["data_volume"],
        database=database,
        redis=_redis(document),
        external_redis=bool(document.get("external_redis")),
        log_level=document["log"]["level"],
        log_location=local["location"],
        job_workers=document["jobservice"]["max_job_workers"],
        job_loggers=_job_loggers(document, known),
        storage_driver=driver,
        storage_options=dict(storage.get(driver) or {}),
        redirect_disabled=bool(redirect[known.redirect_key]) if redirect else False,
        metric=Metric(metric["port"], metric["path"]) if metric.get("enabled") else None,
        no_proxy=INTERNAL_NAMES | asked | set(inside),
        http_proxy=proxy.get("http_proxy") or "",
        https_proxy=proxy.get("https_proxy") or "",
    )


def validate(config: HarborConfig, document: dict[str, Any]) -> None:
    """The checks of prepare. Raises Invalid with the text that prepare prints."""
    if config.hostname == "127.0.0.1":
        raise Invalid("127.0.0.1 can not be the hostname")
    if config.hostname == PLACEHOLDER_HOST:
        raise Invalid("Please specify hostname")
    if config.protocol == "http" and "notary" in config.components:
        raise Invalid("Error: the protocol must be https when Harbor is deployed with Notary")
    if config.protocol == "https":
        if not config.cert or config.cert == PLACEHOLDER_PATHS[0]:
            raise Invalid("Error: The protocol is https but attribute ssl_cert is not set")
        if not config.cert_key or config.cert_key == PLACEHOLDER_PATHS[1]:
            raise Invalid("Error: The protocol is https but attribute ssl_cert_key is not set")
    endpoint = document["log"].get("external_endpoint")
    if endpoint:
        if not endpoint.get("host"):
            raise Invalid("Error: must set log endpoint host to enable external host")
        if not endpoint.get("port"):
            raise Invalid("Error: must set log endpoint port to enable external host")
        if endpoint.get("protocol") not in ("udp", "tcp"):
            raise Invalid("Protocol in external log endpoint must be one of 'udp' or 'tcp'")
    if config.storage_driver not in STORAGE_DRIVERS:
        drivers = ", ".join(STORAGE_DRIVERS)
        raise Invalid(f"Error: storage driver {config.storage_driver} is not supported, only: {drivers}")
    if config.storage_driver != "filesystem" and not config.storage_options:
        raise Invalid(f"Error: no provider configurations are provided for provider {config.storage_driver}")


def check_log_level(config: HarborConfig) -> None:
    """A check that prepare makes outside its validation. Raises RuntimeError, seen as a traceback."""
    if config.log_level not in LOG_LEVELS:
        raise RuntimeError(f"log level must be one of {', '.join(LOG_LEVELS)}")
