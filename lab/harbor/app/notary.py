"""Stands where notary's server and signer stand: `python3 -m miniharbor.notary server|signer`.

Each keeps a database of its own, whose address is in /etc/notary and nowhere else, and ends when it is not there.
"""

import json
import sys
from pathlib import Path

import psycopg2

from .web import Refused, Request, Response, Server, heed_sigterm, setup_logging

PORTS = {"server": 4443, "signer": 7899}
TABLES = {
    "server": "CREATE TABLE IF NOT EXISTS tuf_files (id serial PRIMARY KEY, gun varchar(255) NOT NULL, data bytea)",
    "signer": "CREATE TABLE IF NOT EXISTS private_keys (id serial PRIMARY KEY, key_id varchar(255) NOT NULL UNIQUE)",
}


def address_of(part: str, directory: Path = Path("/etc/notary")) -> str:
    """The address of a part's database."""
    document = json.loads((directory / f"{part}-config.postgres.json").read_text())
    return str(document["storage"]["db_url"])


def main() -> None:
    """Make the table where it is missing, then serve for ever."""
    setup_logging()
    heed_sigterm()
    part = sys.argv[1]
    address = address_of(part)

    def ask(sql: str) -> None:
        connection = psycopg2.connect(address, connect_timeout=10)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(sql)
        finally:
            connection.close()

    def answer(request: Request) -> Response:
        try:
            ask("SELECT 1")
        except psycopg2.Error as error:
            raise Refused(500, "UNKNOWN", "the database does not answer") from error
        return Response.of({})

    ask(TABLES[part])
    Server(PORTS[part], answer).serve_forever()


if __name__ == "__main__":
    main()
