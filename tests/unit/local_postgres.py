"""A real PostgreSQL in a private directory, with a small Harbor database, for tests; gone afterwards."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.backup.server import Server
from tests.unit.local_host import as_user

SCHEMA = """
CREATE ROLE harbor LOGIN PASSWORD 'secret-of-a-role';
CREATE DATABASE registry OWNER harbor;
\\c registry
SET ROLE harbor;
CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL);
INSERT INTO schema_migrations VALUES (120, false);
CREATE TABLE project (project_id serial PRIMARY KEY, name text UNIQUE, registry_id int);
CREATE TABLE repository (repository_id serial PRIMARY KEY, name text UNIQUE,
  project_id int REFERENCES project (project_id));
CREATE TABLE artifact (id serial PRIMARY KEY, project_id int REFERENCES project (project_id),
  repository_id int REFERENCES repository (repository_id), repository_name text, digest text,
  pull_time timestamp, push_time timestamp);
CREATE TABLE blob (id serial PRIMARY KEY, digest text UNIQUE, content_type text, size bigint,
  status text DEFAULT 'none');
CREATE TABLE artifact_blob (id serial PRIMARY KEY, digest_af text, digest_blob text);
CREATE TABLE tag (id serial PRIMARY KEY, artifact_id int REFERENCES artifact (id), name text);
CREATE TABLE properties (id serial PRIMARY KEY, k text UNIQUE, v text);
CREATE TABLE "odd ""name" (x int);
INSERT INTO project (name, registry_id) VALUES ('library', NULL), ('hub', 7);
INSERT INTO repository (name, project_id) VALUES ('library/app', 1), ('hub/app', 2);
INSERT INTO properties (k, v) VALUES ('read_only', 'true');
"""


def programs() -> str | None:
    """The newest installed server's directory of programs, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return str(found[-1].parent) if found else None


@contextmanager
def running_postgres(schema: str = SCHEMA, *, port: int = 5999, listen: str = "") -> Iterator[Server]:
    """Start a server with the schema, on a socket and on TCP only where told, and remove all of it afterwards."""
    bin_dir = programs()
    assert bin_dir is not None
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    # /tmp, not pytest's directory: a socket's path has at most 107 bytes, and postgres must reach it.
    root = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(root, user)
    # The port only names the socket where nothing listens on TCP.
    data = root / "data"

    def run(*argv: str, stdin: str = "") -> None:
        done = subprocess.run(
            as_user(argv, user), input=stdin, text=True, capture_output=True, cwd="/", timeout=60
        )
        assert done.returncode == 0, done.stderr + done.stdout

    options = f"-c listen_addresses={listen} -c unix_socket_directories={root} -c port={port} -c fsync=off"
    try:
        run(
            f"{bin_dir}/initdb",
            "-D",
            str(data),
            "-U",
            user,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "-N",
        )
        run(f"{bin_dir}/pg_ctl", "-D", str(data), "-w", "-l", str(root / "log"), "-o", options, "start")
        server = Server(bin_dir, port, str(root), user)
        if schema:
            run(*server.psql("postgres", "-f", "-"), stdin=schema)
        yield server
    finally:
        stop = [f"{bin_dir}/pg_ctl", "-D", str(data), "-m", "immediate", "stop"]
        subprocess.run(as_user(stop, user), cwd="/", capture_output=True)
        shutil.rmtree(root, ignore_errors=True)
