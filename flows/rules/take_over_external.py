"""May the external database of a Harbor that is adopted be dumped into the pair?"""

from dataclasses import dataclass

from blocks import HarborSite
from flows.rules.table import Check, Weight
from tasks.harbor.adoption import OldHarbor
from tasks.harbor.external_database import OLDEST_SERVER, ExternalSeen, shortened


@dataclass(frozen=True)
class ExternalView:
    """An external database beside the site file.

    Attributes:
        node: of the old Harbor, which the server is reached from and the dump is made on.
        directory: of the old Harbor.
        seen: the database.
        postgres_major, application: of the site file.
    """

    node: str
    directory: str
    seen: ExternalSeen
    postgres_major: int
    application: str

    @property
    def address(self) -> str:
        """Server and port."""
        return self.seen.address

    @property
    def database(self) -> str:
        """Its name, its role and its server, in words."""
        return f"the database {self.seen.name} of {self.seen.user} at {self.seen.address}"

    @property
    def user(self) -> str:
        """The role that Harbor logs in as."""
        return self.seen.user

    @property
    def incomplete(self) -> str:
        """Keys of harbor.yml that say nothing usable."""
        return ", ".join(self.seen.incomplete)

    @property
    def differs(self) -> str:
        """What core and harbor.yml say differently."""
        return "; ".join(self.seen.differs)

    @property
    def silent(self) -> str:
        """Why it could not be asked."""
        return self.seen.silent

    @property
    def answered(self) -> bool:
        """Whether the rest is known."""
        return self.seen.version_num is not None

    @property
    def too_old(self) -> bool:
        """Whether the server is older than any that a Harbor which is taken over was made for."""
        return self.answered and (self.seen.version_num or 0) < OLDEST_SERVER

    @property
    def readable(self) -> bool:
        """Whether its catalogue was read, which is only done of a server that is new enough."""
        return self.answered and not self.too_old

    @property
    def version(self) -> str:
        """The server's version as people write it."""
        number = self.seen.version_num or 0
        return f"{number // 10000}.{number // 100 % 100 if number < 100000 else number % 10000}"

    @property
    def major(self) -> int:
        """The server's major version."""
        return self.seen.major or 0

    @property
    def schemas(self) -> str:
        """Schemas other than public."""
        return shortened(self.seen.schemas)

    @property
    def unreadable(self) -> str:
        """Tables that the role may not read whole."""
        return shortened(self.seen.unreadable)

    @property
    def extensions(self) -> str:
        """Extensions beside PL/pgSQL."""
        return shortened(self.seen.extensions)

    @property
    def others(self) -> str:
        """Addresses of other machines with Harbor's role."""
        return shortened(self.seen.others)


_REFUSE = Weight.REFUSE
EXTERNAL_CHECKS: tuple[Check[ExternalView], ...] = (
    Check(
        "external database incomplete",
        "its harbor.yml does not say how the database is reached",
        lambda view: bool(view.seen.incomplete),
        _REFUSE,
        "{directory}/harbor.yml says nothing usable of {incomplete} under external_database.harbor",
        "write there what the running Harbor uses",
    ),
    Check(
        "external database ambiguous",
        "core runs with another database than its harbor.yml names",
        lambda view: bool(view.seen.differs),
        _REFUSE,
        "the running Harbor and {directory}/harbor.yml name different databases: {differs}",
        "correct harbor.yml, or run its ./prepare and start it, whichever is right",
    ),
    Check(
        "external database silent",
        "the server does not let the role in from the node: refused, not reached, wrong password, no TLS, no entry in "
        "pg_hba.conf",
        lambda view: bool(view.silent),
        _REFUSE,
        "{database} cannot be asked from {node}: {silent}",
        "have the server reached from {node} itself with what harbor.yml says, as the containers reach it: address, "
        "port, password, ssl_mode, pg_hba.conf or the allow list of the instance",
    ),
    Check(
        "external database too old",
        "its server is older than 9.6",
        lambda view: view.too_old,
        _REFUSE,
        "{address} is PostgreSQL {version}, and a dump of nothing before 9.6 is taken",
        "upgrade that server, as the documentation of its Harbor asks for",
    ),
    Check(
        "external database newer",
        "its server is of a newer major version than postgres.major",
        lambda view: view.major > view.postgres_major,
        _REFUSE,
        "{address} is PostgreSQL {version}, and the site's is {postgres_major}: its pg_dump does not read that, nor "
        "does its server load it",
        "set postgres.major to {major} or newer",
    ),
    Check(
        "external database a standby",
        "its server is in recovery",
        lambda view: view.seen.standby,
        _REFUSE,
        "{address} is a standby: Harbor cannot write to it, and what it shows may be old",
        "name the primary in {directory}/harbor.yml, and run its ./prepare and start it",
    ),
    Check(
        "external database empty",
        "it has no schema_migrations of Harbor's in the schema public",
        lambda view: view.readable and view.seen.empty,
        _REFUSE,
        "{database} has no tables of Harbor's in its schema public",
        "name the database that the running Harbor uses in {directory}/harbor.yml",
    ),
    Check(
        "external database with schemas",
        "it has tables in other schemas than public",
        lambda view: bool(view.seen.schemas),
        _REFUSE,
        "{database} has tables in {schemas} besides public, where Harbor keeps its own",
        "move what is not Harbor's to another database; the copy would take it into the pair",
    ),
    Check(
        "external database unreadable",
        "its role may not read a table or a sequence, or only some of its rows",
        lambda view: bool(view.seen.unreadable),
        _REFUSE,
        "{user} may not read all of {unreadable} at {address}, so that there would be no whole dump",
        "have its owner GRANT USAGE on the schema and SELECT on these to {user}, or end their row security",
    ),
    Check(
        "external database with extensions",
        "it has extensions, which the site's role may not create",
        lambda view: bool(view.seen.extensions),
        _REFUSE,
        "{database} has {extensions}, which Harbor does not need and {application} may not create in the pair",
        "DROP EXTENSION there, if nothing else in that database uses it",
    ),
    Check(
        "external database shared",
        "its role is logged in from another machine",
        lambda view: bool(view.seen.others),
        _REFUSE,
        "{user} is logged in to {address} from {others} too: another Harbor there would go on writing to it",
        "stop what uses that database there, and let one Harbor be left",
    ),
)


def external_view_of(site: HarborSite, old: OldHarbor) -> ExternalView | None:
    """Put the external database of an old Harbor beside the site file; None where there is none to be copied."""
    if old.external is None:
        return None
    postgres = site.postgres
    return ExternalView(
        old.node, old.found.directory, old.external, postgres.major, postgres.application.user
    )


def external_lines(view: ExternalView) -> list[str]:
    """Tell what becomes of an external database, for the report of a dry run too."""
    seen, tls = view.seen, "without TLS" if view.seen.ssl_mode == "disable" else f"TLS {view.seen.ssl_mode}"
    lines = [
        f"database: {view.database} ({tls}, PostgreSQL {view.version}) is dumped on {view.node} by pg_dump "
        f"{view.postgres_major} into the pair, with the rows of every table counted on both sides",
        f"{view.address}: stays as it is; all that changes there is Harbor's own read_only, which the command that "
        "puts it back takes back",
    ]
    if seen.databases:
        lines.append(f"{view.address}: {', '.join(seen.databases)} of a Notary that does not run stays there")
    return lines
