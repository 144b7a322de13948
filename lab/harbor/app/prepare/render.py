"""The generated files, as text: environment files, the registry's and jobservice's YAML, nginx."""

import json
import random
from string import Template
from typing import Any

import bcrypt
import yaml

from .model import HarborConfig
from .secretfiles import FreshSecrets

REGISTRY_USER = "harbor_registry_user"


def env_file(values: dict[str, Any]) -> str:
    """`KEY=value` lines, unquoted, as compose reads them."""
    return "".join(f"{key}={value}\n" for key, value in values.items())


def no_proxy(config: HarborConfig) -> str:
    """The NO_PROXY list in an order that differs from run to run, as that of Harbor's Python set does."""
    names = sorted(config.no_proxy)
    random.SystemRandom().shuffle(names)
    return ",".join(names)


def _proxy(config: HarborConfig) -> dict[str, str]:
    return {"HTTP_PROXY": config.http_proxy, "HTTPS_PROXY": config.https_proxy, "NO_PROXY": no_proxy(config)}


def core_env(config: HarborConfig, fresh: FreshSecrets) -> str:
    """core/env: the only file (with exporter/env) that names the database's host."""
    database, known = config.database, config.known
    ages = {
        "POSTGRESQL_CONN_MAX_LIFETIME": database.conn_max_lifetime,
        "POSTGRESQL_CONN_MAX_IDLE_TIME": database.conn_max_idle_time,
    }
    return env_file(
        {
            "CONFIG_PATH": "/etc/core/app.conf",
            "_REDIS_URL_CORE": config.redis.url(0),
            "SYNC_QUOTA": "true",
            "_REDIS_URL_REG": config.redis.url(config.redis.registry_db),
            "LOG_LEVEL": config.log_level,
            "EXT_ENDPOINT": config.public_url,
            "DATABASE_TYPE": "postgresql",
            "POSTGRESQL_HOST": database.host,
            "POSTGRESQL_PORT": database.port,
            "POSTGRESQL_USERNAME": database.username,
            "POSTGRESQL_PASSWORD": database.password,
            "POSTGRESQL_DATABASE": database.name,
            "POSTGRESQL_SSLMODE": database.sslmode,
            "POSTGRESQL_MAX_IDLE_CONNS": database.max_idle_conns,
            "POSTGRESQL_MAX_OPEN_CONNS": database.max_open_conns,
            **(ages if known.connection_ages else {}),
            "REGISTRY_URL": "http://registry:5000",
            "PORTAL_URL": "http://portal:8080",
            "TOKEN_SERVICE_URL": "http://core:8080/service/token",
            "HARBOR_ADMIN_PASSWORD": config.admin_password,
            "MAX_JOB_WORKERS": config.job_workers,
            "CORE_SECRET": fresh.core_secret,
            "JOBSERVICE_SECRET": fresh.jobservice_secret,
            "WITH_TRIVY": config.with_trivy,
            **_removed_since(config),
            "CORE_URL": "http://core:8080",
            "CORE_LOCAL_URL": "http://127.0.0.1:8080",
            "JOBSERVICE_URL": "http://jobservice:8080",
            "TRIVY_ADAPTER_URL": "http://trivy-adapter:8080",
            "REGISTRY_STORAGE_PROVIDER_NAME": config.storage_driver,
            "READ_ONLY": "false",
            "RELOAD_KEY": "",
            "REGISTRY_CONTROLLER_URL": "http://registryctl:8080",
            "REGISTRY_CREDENTIAL_USERNAME": REGISTRY_USER,
            "REGISTRY_CREDENTIAL_PASSWORD": fresh.registry_password,
            "CSRF_KEY": fresh.csrf_key,
            **({"ROBOT_SCANNER_NAME_PREFIX": fresh.scanner_prefix} if known.scanner_prefix else {}),
            **_proxy(config),
            "PORT": 8080,
            **({"QUOTA_UPDATE_PROVIDER": "db"} if known.minor >= 9 else {}),
        }
    )


def _removed_since(config: HarborConfig) -> dict[str, Any]:
    """Core's settings for parts that later versions have not."""
    addresses = {
        "notary": {"NOTARY_URL": "http://notary-server:4443"},
        "chartmuseum": {"CHART_REPOSITORY_URL": "http://chartmuseum:9999"},
    }
    found: dict[str, Any] = {}
    for part, address in addresses.items():
        if part in config.known.components:
            found |= {f"WITH_{part.upper()}": part in config.components, **address}
    return found


def notary_files(config: HarborConfig, alias: str) -> dict[str, str]:
    """notary/*: two programs, each with a database of its own; the addresses are in these files as well."""
    files = {}
    for part, address in config.notary.items():
        user = f"{address.username}:{address.password}"
        url = f"postgres://{user}@{address.host}:{address.port}/{address.name}?sslmode={address.sslmode}"
        storage = {"backend": "postgres", "db_url": url, "default_alias": "defaultalias"}
        files[f"notary/{part}-config.postgres.json"] = json.dumps({"storage": storage}, indent=2) + "\n"
        files[f"notary/{part}_env"] = env_file(
            {"MIGRATIONS_PATH": f"migrations/{part}/postgresql", "DB_URL": url}
        )
    files["notary/signer_env"] += env_file({"NOTARY_SIGNER_DEFAULTALIAS": alias})
    return files


def chartserver_env(config: HarborConfig) -> str:
    """chartserver/env."""
    redis = config.redis
    return env_file(
        {
            "PORT": 9999,
            "CACHE": "redis",
            "CACHE_REDIS_ADDR": f"{redis.host}:{redis.port}",
            "CACHE_REDIS_PASSWORD": redis.password,
            "CACHE_REDIS_DB": redis.chartmuseum_db,
            "STORAGE": "local",
            "STORAGE_LOCAL_ROOTDIR": "/chart_storage",
        }
    )


def jobservice_env(config: HarborConfig, fresh: FreshSecrets) -> str:
    """jobservice/env: no word about the database."""
    return env_file(
        {
            "CORE_SECRET": fresh.core_secret,
            "JOBSERVICE_SECRET": fresh.jobservice_secret,
            "CORE_URL": "http://core:8080",
            "REGISTRY_CONTROLLER_URL": "http://registryctl:8080",
            "JOBSERVICE_WEBHOOK_JOB_MAX_RETRY": 3,
            "JOB_SERVICE_POOL_REDIS_URL": config.redis.url(config.redis.jobservice_db),
            "LOG_LEVEL": config.log_level,
            **_proxy(config),
            "REGISTRY_CREDENTIAL_USERNAME": REGISTRY_USER,
            "REGISTRY_CREDENTIAL_PASSWORD": fresh.registry_password,
        }
    )


def jobservice_config(config: HarborConfig) -> str:
    """jobservice/config.yml."""
    document = {
        "protocol": "http",
        "port": 8080,
        "worker_pool": {
            "workers": config.job_workers,
            "backend": "redis",
            "redis_pool": {
                "redis_url": config.redis.url(config.redis.jobservice_db),
                "namespace": "harbor_job_service_namespace",
                "idle_timeout_second": 3600,
            },
        },
        "job_loggers": [{"name": name, "level": config.log_level.upper()} for name in config.job_loggers],
    }
    return yaml.safe_dump(document, sort_keys=False)


def registryctl_env(fresh: FreshSecrets) -> str:
    """registryctl/env."""
    return env_file({"CORE_SECRET": fresh.core_secret, "JOBSERVICE_SECRET": fresh.jobservice_secret})


def exporter_env(config: HarborConfig) -> str:
    """exporter/env, when metrics are on: the second file with the database's host."""
    database, metric = config.database, config.metric
    return env_file(
        {
            "LOG_LEVEL": config.log_level,
            "HARBOR_EXPORTER_PORT": 8080,
            "HARBOR_EXPORTER_METRICS_PATH": metric.path if metric else "/metrics",
            "HARBOR_DATABASE_HOST": database.host,
            "HARBOR_DATABASE_PORT": database.port,
            "HARBOR_DATABASE_USERNAME": database.username,
            "HARBOR_DATABASE_PASSWORD": database.password,
            "HARBOR_DATABASE_DBNAME": database.name,
            "HARBOR_DATABASE_SSLMODE": database.sslmode,
        }
    )


def trivy_env(config: HarborConfig) -> str:
    """trivy-adapter/env; changes with each run because of NO_PROXY."""
    return env_file({"SCANNER_REDIS_URL": config.redis.url(config.redis.trivy_db), **_proxy(config)})


def htpasswd(fresh: FreshSecrets) -> str:
    """registry/passwd; the running registry reads it again as soon as it changes."""
    sealed = bcrypt.hashpw(fresh.registry_password.encode(), bcrypt.gensalt(rounds=5)).decode()
    return f"{REGISTRY_USER}:{sealed}\n"


def registry_config(config: HarborConfig) -> str:
    """registry/config.yml: storage, the blob descriptor cache in Redis, htpasswd."""
    options = config.storage_options or {}
    if config.storage_driver == "filesystem":
        options = {"rootdirectory": "/storage", **options}
    document: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": config.log_level, "fields": {"service": "registry"}},
        "storage": {
            "cache": {"layerinfo": "redis"},
            config.storage_driver: options,
            "maintenance": {
                "uploadpurging": {"enabled": True, "age": "168h", "interval": "24h", "dryrun": False}
            },
            "delete": {"enabled": True},
            "redirect": {"disable": config.redirect_disabled},
        },
        "redis": {
            "addr": f"{config.redis.host}:{config.redis.port}",
            "db": config.redis.registry_db,
            "dialtimeout": "10s",
            "readtimeout": "10s",
            "writetimeout": "10s",
        },
        "http": {"addr": ":5000", "secret": "placeholder"},
        "auth": {"htpasswd": {"realm": "harbor-registry-basic-realm", "path": "/etc/registry/passwd"}},
        "validation": {"disabled": True},
    }
    if config.redis.password:
        document["redis"]["password"] = config.redis.password
    return yaml.safe_dump(document, sort_keys=False)


_LOCATIONS = """
    location / { proxy_pass http://portal; }
    location /c/ { proxy_pass http://core; }
    location /api/ { proxy_pass http://core; }
    location /v1/ { return 404; }
    location /v2/ {
      proxy_pass http://core;
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_send_timeout 900;
      proxy_read_timeout 900;
    }
    location /service/ { proxy_pass http://core; }
    location /service/notifications { return 404; }
"""

_NGINX = Template("""\
worker_processes auto;
pid /tmp/nginx.pid;
error_log /dev/stderr warn;
events { worker_connections 3096; use epoll; multi_accept on; }
http {
  client_body_temp_path /tmp/client_body_temp;
  proxy_temp_path /tmp/proxy_temp;
  fastcgi_temp_path /tmp/fastcgi_temp;
  uwsgi_temp_path /tmp/uwsgi_temp;
  scgi_temp_path /tmp/scgi_temp;
  access_log off;
  server_tokens off;
  tcp_nodelay on;
  client_max_body_size 0;
  chunked_transfer_encoding on;
  # Names are looked up once, here: a core that comes back under another address is not found again.
  upstream core { server core:8080; }
  upstream portal { server portal:8080; }
  map $$http_x_forwarded_proto $$x_forwarded_proto { default $$http_x_forwarded_proto; "" $$scheme; }
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $$http_host;
  proxy_set_header X-Real-IP $$remote_addr;
  proxy_set_header X-Forwarded-For $$proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $$x_forwarded_proto;
$servers}
""")

_HTTPS = Template("""\
  server {
    listen 8443 ssl;
    server_name $hostname;
    ssl_certificate /etc/cert/server.crt;
    ssl_certificate_key /etc/cert/server.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:SSL:10m;
$locations  }
  server {
    listen 8080;
    server_name $hostname;
    return 308 https://$$host$port$$request_uri;
  }
""")

_NOTARY = Template("""\
  upstream notary-server { server notary-server:4443; }
  server {
    listen 4443 ssl;
    server_name $hostname;
    ssl_certificate /etc/cert/server.crt;
    ssl_certificate_key /etc/cert/server.key;
    location / { proxy_pass http://notary-server; }
  }
""")

_HTTP = Template("""\
  server {
    listen 8080;
    server_name $hostname;
$locations  }
""")


def nginx_conf(config: HarborConfig) -> str:
    """nginx/nginx.conf: TLS and a 308 from http, or http alone."""
    port = "" if config.https_port == 443 else f":{config.https_port}"
    server = _HTTPS if config.protocol == "https" else _HTTP
    text = server.substitute(hostname=config.hostname, locations=_LOCATIONS, port=port)
    if config.notary:
        text += _NOTARY.substitute(hostname=config.hostname)
    return _NGINX.substitute(servers=text)


def portal_conf() -> str:
    """portal/nginx.conf: static pages on 8080."""
    return (
        "worker_processes 1;\npid /tmp/nginx.pid;\nerror_log /dev/stderr warn;\n"
        "events { worker_connections 256; }\n"
        "http {\n  access_log off;\n  client_body_temp_path /tmp/client_body_temp;\n"
        "  proxy_temp_path /tmp/proxy_temp;\n  fastcgi_temp_path /tmp/fastcgi_temp;\n"
        "  uwsgi_temp_path /tmp/uwsgi_temp;\n  scgi_temp_path /tmp/scgi_temp;\n"
        "  server { listen 8080; root /usr/share/miniharbor/portal; index index.html;"
        " location / { try_files $uri /index.html; } }\n}\n"
    )
