"""Who asks, and what they may do."""

import base64
import binascii
import hmac
import time
from dataclasses import dataclass
from typing import Any

from . import passwords
from .context import Core
from .tokens import Access, BadToken, verify
from .web import Refused, Request

PULL_ROLES = (1, 2, 3, 4, 5)
PUSH_ROLES = (1, 2, 4)  # project admin, developer, maintainer


@dataclass(frozen=True)
class Identity:
    """A user, a robot, a holder of a registry token, one of Harbor's own programs, or nobody."""

    name: str = ""
    user_id: int = 0
    admin: bool = False
    robot_project: int | None = None
    granted: tuple[Access, ...] | None = None


ANONYMOUS = Identity()


def _basic(header: str) -> tuple[str, str] | None:
    try:
        user, _, password = base64.b64decode(header.split(" ", 1)[1]).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, IndexError):
        return None
    return user, password


def login(core: Core, name: str, password: str) -> Identity | None:
    """Check name and password of a user or of a robot (`robot$…`); None when they are wrong."""
    with core.database.session() as session:
        if name.startswith("robot$"):
            row = session.row("SELECT * FROM robot WHERE name = %s AND NOT disabled", (name[6:],))
            if row and passwords.matches(password, row["salt"], row["secret"]):
                return Identity(name=name, robot_project=row["project_id"] or 0)
            return None
        row = session.row("SELECT * FROM harbor_user WHERE username = %s AND NOT deleted", (name,))
    if row and passwords.matches(password, row["salt"] or "", row["password"]):
        return Identity(name=name, user_id=row["user_id"], admin=row["sysadmin_flag"])
    return None


def identify(core: Core, request: Request) -> Identity:
    """The sender of a request. Raises Refused (401) when credentials are given and wrong."""
    header = request.headers.get("Authorization", "")
    kind = header.split(" ", 1)[0].lower()
    if kind == "basic":
        pair = _basic(header)
        found = login(core, *pair) if pair else None
        if found is None:
            raise Refused(401, "UNAUTHORIZED", "unauthorized: incorrect user name or password")
        return found
    if kind == "bearer":
        if core.signing_key is None:
            raise Refused(401, "UNAUTHORIZED", "unauthorized: no key to verify a token with")
        try:
            subject, access = verify(core.signing_key, header[7:], int(time.time()))
        except BadToken as error:
            raise Refused(401, "UNAUTHORIZED", f"unauthorized: {error}") from error
        return Identity(name=subject, granted=tuple(access))
    if kind == "harbor-secret":
        known = (core.settings.core_secret, core.settings.jobservice_secret)
        if any(hmac.compare_digest(header[14:], secret) for secret in known):
            return Identity(name="harbor-internal", admin=True)
        raise Refused(401, "UNAUTHORIZED", "unauthorized: wrong internal secret")
    return ANONYMOUS


def require_admin(core: Core, request: Request) -> Identity:
    """The sender, who must be a system administrator. Raises Refused (401, 403)."""
    who = require_user(core, request)
    if not who.admin:
        raise Refused(403, "FORBIDDEN", "forbidden: only system administrators may do this")
    return who


def require_user(core: Core, request: Request) -> Identity:
    """The sender, who must be somebody. Raises Refused (401)."""
    who = identify(core, request)
    if not who.name or who.granted is not None:
        raise Refused(401, "UNAUTHORIZED", "UnAuthorized")
    return who


def allowed_actions(core: Core, who: Identity, project: dict[str, Any] | None) -> frozenset[str]:
    """Which of pull, push and delete somebody may do in a project (a row of it, or None)."""
    if who.admin:
        return frozenset({"pull", "push", "delete"})
    if project is None:
        return frozenset()
    if who.robot_project is not None:
        inside = who.robot_project in (0, project["project_id"])
        return frozenset({"pull", "push"} if inside else ())
    with core.database.session() as session:
        role = session.value(
            "SELECT role FROM project_member WHERE project_id = %s AND entity_id = %s AND entity_type = 'u'",
            (project["project_id"], who.user_id),
        )
        public = session.value(
            "SELECT value FROM project_metadata WHERE project_id = %s AND name = 'public'",
            (project["project_id"],),
        )
    if role in PUSH_ROLES:
        return frozenset({"pull", "push"})
    return frozenset({"pull"} if role in PULL_ROLES or public == "true" else ())
