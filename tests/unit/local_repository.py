"""A real PostgreSQL that ships its WAL with the real pgBackRest to the lab's OSS server, all on loopback."""

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from blocks import HarborSite
from blocks.site_file import read_site_file
from lab.oss.server import OssServer
from lab.oss.tls import Tls
from tasks.backup.server import Server
from tasks.pitr.settings import PROGRAM, Paths, configuration, push_command
from tests.unit.local_host import as_user
from tests.unit.local_oss import ACCESS_KEY_ID, ACCESS_KEY_SECRET, BUCKET, REGION
from tests.unit.local_postgres import programs
from tests.unit.site_on_disk import NOW, correct_site

PASSPHRASE = "a-passphrase-for-tests-only"
PORT = 5998


def missing_programs() -> str:
    """Say which program the tests need and this machine lacks; empty when all are there."""
    if programs() is None:
        return "no PostgreSQL server is installed"
    return "" if Path(PROGRAM).exists() else "pgBackRest is not installed (apt-get install pgbackrest)"


@dataclass
class Repository:
    """The site, its running server, its bucket, and everything in between.

    Attributes:
        root: a directory that the server's user may enter.
        extra: further lines of pgBackRest's global section.
    """

    site: HarborSite
    oss: OssServer
    root: Path
    user: str
    paths: Paths

    @property
    def server(self) -> Server:
        """The server, for programs."""
        bin_dir = programs()
        assert bin_dir is not None
        return Server(bin_dir, PORT, str(self.root), self.user)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.root / "data"

    def configure(self, **oss: object) -> None:
        """Write pgBackRest's configuration, with another setting of the bucket where one is given."""
        bucket = self.site.oss
        assert bucket is not None
        site = self.site.model_copy(update={"oss": bucket.model_copy(update=oss)})
        text = configuration(site, self.paths)
        # pgBackRest refuses parts of a second from 2.55 on.
        assert not re.search(r"timeout=\d*\.", text), text
        # The name of the bucket's host does not resolve here; the certificate is for the name that does.
        text = text.replace("[global]\n", "[global]\nrepo1-storage-host=localhost\n")
        file = Path(self.paths.config)
        file.write_text(text)
        file.chmod(0o600)
        self.give(file)

    def give(self, path: Path) -> None:
        """Make a path the server's user's."""
        if os.geteuid() == 0:
            shutil.chown(path, self.user)

    def run(self, *argv: str, stdin: str = "", timeout: float = 120, check: bool = True) -> str:
        """Run a program as the server's user and return its output."""
        done = subprocess.run(
            as_user(argv, self.user),
            input=stdin,
            text=True,
            errors="replace",
            capture_output=True,
            cwd="/",
            timeout=timeout,
        )
        assert not check or done.returncode == 0, done.stderr + done.stdout
        return done.stdout + ("" if check else done.stderr)

    def sql(self, statements: str, database: str = "postgres") -> str:
        """Run SQL and return its output."""
        return self.run(*self.server.psql(database, "-f", "-"), stdin=statements).strip()

    def start(self, data: Path | None = None) -> None:
        """Start the server on a data directory."""
        data = data or self.data
        argv = ["-D", str(data), "-w", "-t", "120", "-l", str(self.root / "log"), "start"]
        try:
            self.run(f"{self.server.programs}/pg_ctl", *argv)
        except AssertionError as error:
            raise AssertionError(self.log()[-2000:]) from error

    def stop(self, data: Path | None = None, mode: str = "fast", timeout: float = 120) -> None:
        """Stop the server."""
        argv = ["-D", str(data or self.data), "-m", mode, "-t", str(int(timeout)), "stop"]
        self.run(f"{self.server.programs}/pg_ctl", *argv, timeout=timeout + 5)

    def log(self) -> str:
        """What the server said."""
        return (self.root / "log").read_text(errors="replace")


@contextmanager
def running_repository(directory: Path, **policy: object) -> Iterator[Repository]:
    """Start the bucket and the server; the stanza is not created yet. All of it is gone afterwards."""
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    # Not pytest's directory: a socket's path has at most 107 bytes, and postgres must reach it.
    root = Path(tempfile.mkdtemp(prefix="pitr-", dir="/tmp"))
    paths = Paths(*(str(root / name) for name in ("conf", "ca.pem", "spool", "logs", "locks")), str(root))
    tls = certificate_for(root, "localhost")
    with OssServer(directory / "bucket", BUCKET, ACCESS_KEY_ID, ACCESS_KEY_SECRET, REGION, tls=tls) as oss:
        made = Repository(_site(directory, root, oss, **policy), oss, root, user, paths)
        for name in ("", "spool", "logs", "locks"):
            (root / name).mkdir(exist_ok=True)
            made.give(root / name)
        shutil.copy(tls.certificate, paths.ca)
        made.configure()
        try:
            _create(made)
            made.start()
            yield made
        finally:
            if (root / "data" / "postmaster.pid").exists():
                made.run(
                    f"{made.server.programs}/pg_ctl",
                    "-D",
                    str(made.data),
                    "-m",
                    "immediate",
                    "stop",
                    check=False,
                )
            shutil.rmtree(root, ignore_errors=True)


def _site(directory: Path, root: Path, oss: OssServer, **policy: object) -> HarborSite:
    site = read_site_file(correct_site(directory).write(), now=NOW)
    bucket = {
        "endpoint": oss.endpoint,
        "region": REGION,
        "bucket": BUCKET,
        "access_key_id": ACCESS_KEY_ID,
        "access_key_secret": SecretStr(ACCESS_KEY_SECRET),
        "s3_endpoint": f"https://s3.lab.test:{oss.tls_port}",
        "s3_ca": "a file",
    }
    archive = {"wal_archive": "oss", "wal_passphrase": SecretStr(PASSPHRASE), **policy}
    assert site.oss is not None
    major = int(str(programs()).split("/")[4])
    return site.model_copy(
        update={
            "oss": site.oss.model_copy(update=bucket),
            "backup": site.backup.model_copy(update=archive),
            "postgres": site.postgres.model_copy(
                update={"data_dir": str(root / "data"), "port": PORT, "major": major}
            ),
        }
    )


def _create(made: Repository) -> None:
    programs_dir = made.server.programs
    initdb = ["-D", str(made.data), "-U", made.user, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"]
    made.run(f"{programs_dir}/initdb", *initdb)
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(made.root),
        "port": str(PORT),
        "fsync": "off",
        "wal_level": "replica",
        "archive_mode": "on",
        "archive_command": push_command(made.site, made.paths),
    }
    text = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
    with (made.data / "postgresql.conf").open("a") as file:
        file.write(text)


def certificate_for(directory: Path, name: str) -> Tls:
    """Make a certificate for a name, which is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, file = directory / "server.pem", directory / "server.key"
    certificate.write_bytes(built.public_bytes(Encoding.PEM))
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Tls(certificate, file)
