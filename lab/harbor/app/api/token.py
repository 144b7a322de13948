"""/service/token: what somebody may do becomes a signed token."""

import time

from ..context import Core
from ..identity import allowed_actions, identify
from ..records import find_project
from ..tokens import LIFETIME, Access, issue
from ..web import Refused, Request, Response, Routes


def _grant(core: Core, request: Request, wanted: Access) -> Access:
    who = identify(core, request)
    if wanted.kind == "registry":
        return Access(wanted.kind, wanted.name, wanted.actions if who.admin else ())
    with core.database.session() as session:
        project = find_project(session, wanted.name.split("/")[0])
    allowed = allowed_actions(core, who, project) if project else frozenset()
    asked = {"pull", "push", "delete"} if "*" in wanted.actions else set(wanted.actions)
    return Access(wanted.kind, wanted.name, tuple(sorted(asked & allowed)))


def get_token(core: Core, request: Request) -> Response:
    """A bearer token with the asked scopes, cut down to what is allowed. Raises Refused (401, 500)."""
    who = identify(core, request)
    wanted = [access for access in map(Access.parse, request.scopes) if access]
    granted = [_grant(core, request, access) for access in wanted]
    if core.signing_key is None:
        raise Refused(500, "UNKNOWN", "unable to get PrivateKey from PEM type: PRIVATE KEY")
    now = int(time.time())
    token = issue(core.signing_key, who.name, granted, now)
    issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    return Response.of({"token": token, "access_token": "", "expires_in": LIFETIME, "issued_at": issued})


def register(routes: Routes) -> None:
    """Add this module's route."""
    routes.add("GET", "/service/token", get_token)
