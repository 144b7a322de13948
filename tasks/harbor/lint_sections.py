"""What Harbor's prepare asks of each section of harbor.yml, by version; read off prepare's sources, 2.3.5 to 2.15.2."""

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.harbor.versions import Version, habits

# Read as sections when they are there; anything else in their place is an AttributeError or a TypeError in prepare.
_SECTIONS = (
    *("http", "https", "proxy", "trivy", "jobservice", "notification", "database", "storage_service", "log"),
    *(
        "log.local",
        "log.external_endpoint",
        "external_database",
        "external_database.harbor",
        "external_redis",
    ),
    *(
        "storage_service.redirect",
        "internal_tls",
        "metric",
        "trace",
        "upload_purging",
        "cache",
        "core",
        "redis",
    ),
)
# Of storage_service: everything else is the name of a driver.
_NO_OBJECT_STORE = ("filesystem", "ca_bundle", "redirect")
# Once the section is there, each of its keys is mandatory.
_WHOLE = {"log.external_endpoint": ("protocol", "host", "port"), "metric": ("enabled", "port", "path")}
_LEVELS = ("debug", "info", "warning", "error", "fatal")
# What a site's external_redis may say. Everything else there changes what these mean: a sentinel's name makes
# another kind of address, a user name another user, and the index of a database one that a restore does not empty.
REDIS_KEYS = {
    *(
        "host",
        "password",
        "registry_db_index",
        "jobservice_db_index",
        "trivy_db_index",
        "chartmuseum_db_index",
    ),
    "idle_timeout_seconds",
}


def at(document: Any, path: str) -> Any:
    """Give the value at a dotted path; None where there is none."""
    for key in path.split("."):
        if not isinstance(document, Mapping):
            return None
        document = document.get(key)
    return document


def object_store(document: Mapping[str, Any]) -> str:
    """Name the driver by which Harbor keeps its images elsewhere than in files; "" where it does not."""
    section = at(document, "storage_service")
    names = (
        [str(key)[:40] for key in section if key not in _NO_OBJECT_STORE]
        if isinstance(section, Mapping)
        else []
    )
    return names[0] if names else ""


def no_sections(document: Mapping[str, Any]) -> Iterator[str]:
    """Name what stands in the place of a section and is none."""
    for path in _SECTIONS:
        value = at(document, path)
        if value and not isinstance(value, Mapping):
            yield f"{path} is not a section with keys."


def missing(document: Mapping[str, Any], version: Version) -> Iterator[str]:
    """Name the keys that prepare of this version takes without looking whether they are there."""
    known = habits(version)
    wanted = ["jobservice.max_job_workers", "notification.webhook_job_max_retry", "log.level", "log.local"]
    if known.sweeper_and_hook_timeout:
        wanted += ["jobservice.logger_sweeper_duration", "notification.webhook_job_http_client_timeout"]
    if known.job_loggers:
        wanted.append("jobservice.job_loggers")
    for path, keys in _WHOLE.items():
        wanted += [f"{path}.{key}" for key in keys] if at(document, path) else []
    for path in wanted:
        value = at(document, path)
        if value is None or (path == "log.local" and not value):
            yield f"{path} is missing; prepare of {version} needs it."


def wrong_values(document: Mapping[str, Any], version: Version) -> Iterator[str]:
    """Name the values that prepare of this version refuses, after it has deleted the running configuration."""
    level, protocol = at(document, "log.level"), at(document, "log.external_endpoint.protocol")
    if level is not None and level not in _LEVELS:
        yield f"log.level must be one of {', '.join(_LEVELS)}."
    if protocol is not None and protocol not in ("udp", "tcp"):
        yield "log.external_endpoint.protocol must be udp or tcp."
    if at(document, "proxy.no_proxy") and not isinstance(at(document, "proxy.no_proxy"), str):
        yield "proxy.no_proxy must be one text with commas, not a list."
    minor = version.minor
    if minor >= 4:
        yield from _trace(document)
    if minor >= 5 and at(document, "upload_purging.enabled"):
        yield from (f"upload_purging.{key} must be hours such as 168h." for key in _no_hours(document))
    hours = at(document, "cache.expire_hours")
    if minor >= 6 and at(document, "cache.enabled") and not (isinstance(hours, int | float) and hours > 0):
        yield "cache.expire_hours must be a number above 0."
    if minor >= 9 and (at(document, "core.quota_update_provider") or "db") not in ("db", "redis"):
        yield "core.quota_update_provider must be db or redis."


def other_meaning(document: Mapping[str, Any], version: Version) -> Iterator[str]:
    """Name what prepare takes and what makes of the site another one than its site file says."""
    if at(document, "internal_tls.enabled"):
        yield (
            "internal_tls is enabled: then core answers over HTTPS only, and no look would find it alive; it is not "
            "supported, so turn it off."
        )
    if habits(version).redis_section and at(document, "redis"):
        yield (
            "there is a section `redis`, by which Harbor would use a Redis of its own instead of external_redis: "
            "remove it."
        )
    redis = at(document, "external_redis")
    for key in sorted(set(map(str, redis)) - REDIS_KEYS) if isinstance(redis, Mapping) else ():
        yield f"external_redis.{key} changes what the site file says of Redis: remove it."


def _trace(document: Mapping[str, Any]) -> Iterator[str]:
    if not at(document, "trace.enabled"):
        return
    jaeger, otel = at(document, "trace.jaeger"), at(document, "trace.otel")
    if bool(jaeger) == bool(otel):
        yield "trace is enabled and must have one of jaeger and otel, and only one."
    elif otel and not (at(otel, "endpoint") and at(otel, "url_path")):
        yield "trace.otel must have endpoint and url_path."
    elif jaeger and bool(at(jaeger, "endpoint")) == bool(at(jaeger, "agent_host")):
        yield "trace.jaeger must have one of endpoint and agent_host, and only one."


def _no_hours(document: Mapping[str, Any]) -> list[str]:
    found = {key: at(document, f"upload_purging.{key}") or "24h" for key in ("age", "interval")}
    return [key for key, text in found.items() if not _hours(text)]


def _hours(value: Any) -> bool:
    return isinstance(value, str) and value.endswith("h") and value[:-1].isnumeric() and int(value[:-1]) >= 2
