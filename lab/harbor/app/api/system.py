"""/ping, /health, /systeminfo, /statistics, /configurations, /internalconfig."""

from .. import config
from ..context import Core
from ..habits import habits
from ..identity import identify, require_admin, require_user
from ..web import Refused, Request, Response, Routes

API = "/api/v2.0"


def ping(core: Core, request: Request) -> Response:
    """Core's process answers; the database is not asked."""
    return Response(body=b"Pong", headers={"Content-Type": "text/plain; charset=utf-8"})


def health(core: Core, request: Request) -> Response:
    """Always 200: the body tells."""
    return Response.of(core.health())


def systeminfo(core: Core, request: Request) -> Response:
    """A little for everybody, more for those who are logged in."""
    who = identify(core, request)
    values = config.load(core)
    info = {
        "auth_mode": values["auth_mode"],
        "external_url": core.settings.ext_endpoint,
        "self_registration": values["self_registration"],
        "harbor_version": core.version,
    }
    if not who.name:
        del info["harbor_version"]
    else:
        info |= {
            "registry_url": core.settings.ext_endpoint.split("://", 1)[1],
            "read_only": values["read_only"],
            "registry_storage_provider_name": core.settings.storage_provider,
            "project_creation_restriction": values["project_creation_restriction"],
            "has_ca_root": False,
        }
        known = habits(core.version).components
        for part, address in (
            ("notary", core.settings.notary_url),
            ("chartmuseum", core.settings.chartmuseum_url),
        ):
            if part in known:
                info[f"with_{part}"] = bool(address)
    return Response.of(info)


def statistics(core: Core, request: Request) -> Response:
    """Counts of the whole site."""
    require_user(core, request)
    with core.database.session() as session:
        row = session.row(
            "SELECT (SELECT count(*) FROM project WHERE NOT deleted) AS total_project_count,"
            " (SELECT count(*) FROM project_metadata WHERE name = 'public' AND value = 'true')"
            " AS public_project_count,"
            " (SELECT count(*) FROM repository) AS total_repo_count,"
            " (SELECT coalesce(sum(size), 0)::bigint FROM blob) AS total_storage_consumption"
        )
    return Response.of({**(row or {}), "private_project_count": 0, "private_repo_count": 0})


def get_configurations(core: Core, request: Request) -> Response:
    """All settings, each with its value and whether it may be changed."""
    require_admin(core, request)
    values = config.load(core)
    return Response.of({key: {"value": value, "editable": True} for key, value in values.items()})


def put_configurations(core: Core, request: Request) -> Response:
    """Change settings; this one write is allowed while the site is read-only."""
    require_admin(core, request)
    config.save(core, request.json())
    return Response()


def internal_config(core: Core, request: Request) -> Response:
    """Core's settings for jobservice, also where the database is. Jobservice asks once in its life."""
    who = identify(core, request)
    if who.name != "harbor-internal":
        raise Refused(401, "UNAUTHORIZED", "for Harbor's own programs only")
    merged = {**config.load(core), **core.settings.database.as_config()}
    return Response.of({key: {"value": value, "editable": False} for key, value in merged.items()})


def register(routes: Routes) -> None:
    """Add this module's routes."""
    routes.add("GET", f"{API}/ping", ping)
    routes.add("GET", f"{API}/health", health)
    routes.add("GET", f"{API}/systeminfo", systeminfo)
    routes.add("GET", f"{API}/statistics", statistics)
    routes.add("GET", f"{API}/configurations", get_configurations)
    routes.add("PUT", f"{API}/configurations", put_configurations)
    routes.add("GET", f"{API}/internalconfig", internal_config)
