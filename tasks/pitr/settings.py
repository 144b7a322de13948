"""pgBackRest's configuration as text, and where its repository lies in the bucket."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from blocks import HarborSite, OssBucket
from tasks.errors import Refused
from tasks.postgres.layout import layout_of

PROGRAM = "/usr/bin/pgbackrest"

# Relative to the site's prefix. Its uploads are not ours to abort, see nightly_backup.
REPOSITORY = "pgbackrest/"

# An archive_command that hangs would hang the shutdown, which waits for the archiver. pgBackRest gives up by
# itself first, so that its reason is in the server's log.
IO_TIMEOUT_S = 10
PUSH_TIMEOUT_S = 25
KILL_TIMEOUT_S = 45


@dataclass(frozen=True)
class Paths:
    """Where pgBackRest's things are on a node.

    Attributes:
        config: a file of our own: an administrator may use pgBackRest for other databases of the machine.
    """

    config: str = "/etc/pgbackrest/harbor-ha.conf"
    ca: str = "/etc/pgbackrest/harbor-ha-ca.pem"
    spool: str = "/var/spool/pgbackrest"
    logs: str = "/var/log/pgbackrest"
    locks: str = "/tmp/pgbackrest"
    sockets: str = "/var/run/postgresql"


PATHS = Paths()


def uses_repository(site: HarborSite) -> bool:
    """Whether WAL goes into the bucket as well."""
    return site.backup.wal_archive == "oss"


def bucket_of(site: HarborSite) -> OssBucket:
    """The site's bucket.

    Raises:
        Refused: the site keeps no WAL in a bucket.
    """
    if site.oss is None or not uses_repository(site):
        raise Refused(
            f"The site {site.name} keeps no WAL in a bucket.",
            ["Set `backup.wal_archive: oss` in the site file, apply it, and run bootstrap."],
        )
    return site.oss


def stanza_of(site: HarborSite) -> str:
    """The name of the site's database in the repository; both nodes use the same."""
    return site.name


def s3_endpoint(oss: OssBucket) -> str:
    """Where OSS speaks S3, with scheme.

    `s3_endpoint` where it is set. Alibaba Cloud's documentation on its compatibility with Amazon S3 names
    `s3.oss-REGION.aliyuncs.com` and `s3.oss-REGION-internal.aliyuncs.com`.
    """
    if oss.s3_endpoint:
        return oss.s3_endpoint
    host = urlsplit(oss.endpoint).netloc
    return f"https://s3.{host}" if host.startswith("oss-") else f"https://{host}"


def configuration(site: HarborSite, paths: Paths = PATHS) -> str:
    """Render pgBackRest's configuration. A secret.

    Raises:
        Refused: the site keeps no WAL in a bucket.
    """
    oss, policy, layout = bucket_of(site), site.backup, layout_of(site)
    assert policy.wal_passphrase is not None  # a rule of the site file
    endpoint = urlsplit(s3_endpoint(oss))
    settings: list[tuple[str, object]] = [
        ("repo1-type", "s3"),
        ("repo1-path", f"/{oss.prefix.strip('/')}/{site.name}/{REPOSITORY.rstrip('/')}"),
        ("repo1-s3-bucket", oss.bucket),
        ("repo1-s3-endpoint", endpoint.hostname),
        ("repo1-s3-region", oss.region),
        # OSS refuses the other style: SecondLevelDomainForbidden.
        ("repo1-s3-uri-style", "host"),
        ("repo1-s3-key", oss.access_key_id),
        ("repo1-s3-key-secret", oss.access_key_secret.get_secret_value()),
        ("repo1-cipher-type", "aes-256-cbc"),
        ("repo1-cipher-pass", policy.wal_passphrase.get_secret_value()),
        ("repo1-retention-full", policy.keep_base_backups),
        ("archive-async", "y"),
        # Beyond it WAL is dropped, with a gap in the repository, rather than the primary's disk filled.
        ("archive-push-queue-max", policy.wal_queue_max_bytes),
        ("archive-timeout", PUSH_TIMEOUT_S),
        ("io-timeout", IO_TIMEOUT_S),
        ("compress-type", "zst"),
        ("process-max", 2),
        ("spool-path", paths.spool),
        ("log-path", paths.logs),
        ("lock-path", paths.locks),
        # Standard output is for answers.
        ("log-level-console", "off"),
        ("log-level-stderr", "warn"),
        ("start-fast", "y"),
    ]
    if endpoint.port:
        settings.append(("repo1-storage-port", endpoint.port))
    if oss.s3_ca:
        settings.append(("repo1-storage-ca-file", paths.ca))
    lines = ["# Written by bootstrap; changes are undone.", "[global]"]
    lines += [f"{name}={value}" for name, value in settings]
    lines += [
        "",
        f"[{stanza_of(site)}]",
        f"pg1-path={layout.data}",
        f"pg1-port={layout.port}",
        f"pg1-socket-path={paths.sockets}",
    ]
    return "\n".join(lines) + "\n"


def command(site: HarborSite, name: str, *options: str, paths: Paths = PATHS) -> list[str]:
    """The argument list of one of pgBackRest's commands; without secrets, those are in the file."""
    return [PROGRAM, f"--config={paths.config}", f"--stanza={stanza_of(site)}", *options, name]


def push_command(site: HarborSite, paths: Paths = PATHS) -> str:
    """What PostgreSQL's archive_command runs after the local copy; it is a shell line."""
    return f"timeout {KILL_TIMEOUT_S} {' '.join(command(site, 'archive-push', paths=paths))} %p"


def get_command(site: HarborSite, paths: Paths = PATHS) -> str:
    """What PostgreSQL's restore_command runs; it is a shell line."""
    return f'{" ".join(command(site, "archive-get", paths=paths))} %f "%p"'
