"""A generator of odd databases around Harbor's own: everything that people keep beside it, in any combination.

A world is a seed. Each oddity is a piece of SQL that a superuser of the source runs in `registry`; `{n}` stands for a
number of its own, so that an oddity can come twice.
"""

import random
from dataclasses import dataclass

ODDITIES: dict[str, str] = {
    "role with rights": "CREATE ROLE r{n} LOGIN PASSWORD 'x'; GRANT SELECT, UPDATE ON artifact TO r{n};",
    "rights on a column": "CREATE ROLE r{n}; GRANT SELECT (digest) ON blob TO r{n};"
    "GRANT ALL ON SEQUENCE tag_id_seq TO r{n};",
    "superuser with rights": 'CREATE ROLE "Big ""R{n}" SUPERUSER BYPASSRLS; GRANT ALL ON project TO "Big ""R{n}";',
    "rights of rights": "CREATE ROLE a{n}; CREATE ROLE b{n}; GRANT SELECT ON tag TO a{n} WITH GRANT OPTION;"
    "GRANT USAGE ON SCHEMA public TO a{n};"
    "SET ROLE a{n}; GRANT SELECT ON tag TO b{n}; RESET ROLE;",
    "rights on the schema": "CREATE ROLE r{n}; GRANT USAGE, CREATE ON SCHEMA public TO r{n};",
    "rights on the database": "CREATE ROLE r{n}; GRANT CONNECT ON DATABASE registry TO r{n};",
    "rights on the system's": "CREATE ROLE r{n}; GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() TO r{n};",
    "no rights for anybody": "REVOKE ALL ON SCHEMA public FROM PUBLIC; REVOKE ALL ON properties FROM harbor;",
    "other owner": "CREATE ROLE o{n}; CREATE TABLE owned{n} (x int); INSERT INTO owned{n} VALUES (1), (2);"
    "ALTER TABLE owned{n} OWNER TO o{n};",
    "other owner's schema": "CREATE ROLE o{n}; CREATE SCHEMA s{n} AUTHORIZATION o{n}; CREATE TABLE s{n}.t (x int);",
    "default privileges": "CREATE ROLE o{n}; ALTER DEFAULT PRIVILEGES FOR ROLE o{n} GRANT SELECT ON TABLES TO harbor;"
    "ALTER DEFAULT PRIVILEGES FOR ROLE harbor IN SCHEMA public GRANT SELECT ON TABLES TO o{n};",
    "extension of monitoring": "CREATE SCHEMA e{n}; CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA e{n};"
    "CREATE ROLE m{n}; GRANT USAGE ON SCHEMA e{n} TO m{n};",
    "extension in use": "CREATE EXTENSION IF NOT EXISTS hstore; CREATE TABLE h{n} (x hstore);"
    "INSERT INTO h{n} VALUES ('a=>1'); CREATE INDEX ON h{n} USING gin (x);",
    "extension for search": "CREATE EXTENSION IF NOT EXISTS pg_trgm;"
    "CREATE INDEX tr{n} ON repository USING gin (name gin_trgm_ops);",
    "extension with defaults": 'CREATE EXTENSION IF NOT EXISTS "uuid-ossp"; '
    "CREATE TABLE u{n} (id uuid DEFAULT uuid_generate_v4()); INSERT INTO u{n} DEFAULT VALUES;",
    "rights on an extension's view": "CREATE EXTENSION IF NOT EXISTS pg_buffercache; CREATE ROLE r{n};"
    "GRANT SELECT ON pg_buffercache TO r{n}; CREATE VIEW bc{n} AS SELECT count(*) FROM pg_buffercache;",
    "foreign server": "CREATE EXTENSION IF NOT EXISTS postgres_fdw; "
    "CREATE SERVER f{n} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'elsewhere');"
    "CREATE USER MAPPING FOR harbor SERVER f{n} OPTIONS (user 'u', password 'secret-of-a-mapping');"
    "CREATE FOREIGN TABLE ft{n} (x int) SERVER f{n}; CREATE VIEW fv{n} AS SELECT * FROM ft{n};",
    "foreign data wrapper": "CREATE FOREIGN DATA WRAPPER w{n};",
    "policy": "CREATE ROLE r{n}; CREATE TABLE p{n} (x int); INSERT INTO p{n} VALUES (1), (2), (3);"
    "ALTER TABLE p{n} ENABLE ROW LEVEL SECURITY; CREATE POLICY pol ON p{n} TO r{n} USING (x > 1);",
    "forced policy": "CREATE TABLE fp{n} (x int); INSERT INTO fp{n} VALUES (1), (2); "
    "ALTER TABLE fp{n} ENABLE ROW LEVEL SECURITY; ALTER TABLE fp{n} FORCE ROW LEVEL SECURITY;",
    "publication": "CREATE PUBLICATION pub{n} FOR TABLE artifact, blob;",
    "publication of all": "CREATE PUBLICATION puball{n} FOR ALL TABLES;",
    "publication of a schema": "CREATE PUBLICATION pubs{n} FOR TABLES IN SCHEMA public;",
    "subscription": "CREATE SUBSCRIPTION sub{n} CONNECTION 'host=elsewhere password=secret-of-a-subscription' "
    "PUBLICATION p WITH (connect = false, slot_name = NONE, enabled = false, create_slot = false);",
    "event trigger": "CREATE FUNCTION ev{n}() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
    "CREATE EVENT TRIGGER et{n} ON ddl_command_end EXECUTE FUNCTION ev{n}();",
    "large objects": "SELECT lo_from_bytea(0, 'content'); CREATE ROLE l{n};"
    "DO $$ DECLARE o oid := lo_create(0); BEGIN EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO l{n}', o); END $$;",
    "unlogged table": "CREATE UNLOGGED TABLE un{n} (x int); INSERT INTO un{n} VALUES (1);",
    "other schemas": 'CREATE SCHEMA "Odd schema {n}"; CREATE TABLE "Odd schema {n}"."t;--" ("c ""x" text);'
    'INSERT INTO "Odd schema {n}"."t;--" VALUES (E\'a\\tb\\nc\\\\.\'), (NULL);',
    "name with a line end": 'CREATE TABLE "two\nlines {n}" (x int); INSERT INTO "two\nlines {n}" VALUES (7);',
    "name with a TOC in it": 'CREATE TABLE "x\n--\n-- TOC entry 7 (class 1 OID 2){n}" (x int);',
    "name from elsewhere": 'CREATE TABLE "métrique{n}" (x text); INSERT INTO "métrique{n}" VALUES (\'é\');',
    "sequences": "CREATE SEQUENCE sq{n} AS smallint INCREMENT -1 MINVALUE -99 CYCLE; SELECT nextval('sq{n}');"
    "CREATE TABLE id{n} (a int GENERATED ALWAYS AS IDENTITY, b int); INSERT INTO id{n} (b) VALUES (1), (2);",
    "generated column": "CREATE TABLE g{n} (a int, b int GENERATED ALWAYS AS (a * 2) STORED);"
    "INSERT INTO g{n} VALUES (3);",
    "materialized view": "CREATE MATERIALIZED VIEW mv{n} AS SELECT count(*) AS n FROM artifact;"
    "CREATE UNIQUE INDEX ON mv{n} (n);",
    "partitions": "CREATE TABLE pt{n} (x int) PARTITION BY RANGE (x); CREATE TABLE pt{n}_1 PARTITION OF pt{n} "
    "FOR VALUES FROM (0) TO (10); CREATE TABLE pt{n}_d PARTITION OF pt{n} DEFAULT; "
    "CREATE INDEX ON pt{n} (x); INSERT INTO pt{n} VALUES (1), (99);",
    "inheritance": "CREATE TABLE pa{n} (x int); CREATE TABLE ch{n} () INHERITS (pa{n}); INSERT INTO ch{n} VALUES (1);",
    "types and domains": "CREATE TYPE en{n} AS ENUM ('a', 'b'); CREATE DOMAIN dm{n} AS int CHECK (VALUE > 0);"
    "CREATE TYPE co{n} AS (x en{n}, y dm{n}); CREATE TABLE ty{n} (z co{n}); INSERT INTO ty{n} VALUES (ROW('a', 1));",
    "base type": "CREATE TYPE bt{n};"
    "CREATE FUNCTION bti{n}(cstring) RETURNS bt{n} LANGUAGE internal IMMUTABLE STRICT AS 'textin';"
    "CREATE FUNCTION bto{n}(bt{n}) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';"
    "CREATE TYPE bt{n} (INPUT = bti{n}, OUTPUT = bto{n}); CREATE TABLE btt{n} (x bt{n});"
    "INSERT INTO btt{n} VALUES ('q');",
    "trigger and rule": "CREATE FUNCTION tf{n}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
    "CREATE TRIGGER tg{n} BEFORE INSERT ON tag FOR EACH ROW EXECUTE FUNCTION tf{n}();"
    "ALTER TABLE tag ENABLE ALWAYS TRIGGER tg{n}; CREATE RULE ru{n} AS ON DELETE TO properties DO ALSO NOTHING;",
    "function in C": "CREATE FUNCTION cf{n}(int) RETURNS int LANGUAGE internal AS 'int4up';"
    "CREATE VIEW cv{n} AS SELECT cf{n}(1) AS x;",
    "leakproof function": "CREATE FUNCTION lf{n}(int) RETURNS bool LANGUAGE sql IMMUTABLE LEAKPROOF AS 'SELECT true';",
    "operators": "CREATE FUNCTION of{n}(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $2';"
    "CREATE OPERATOR ==={n_op} (LEFTARG = int, RIGHTARG = int, FUNCTION = of{n});"
    "CREATE OPERATOR FAMILY opf{n} USING btree;",
    "cast": "CREATE TYPE ca{n} AS (x int); CREATE TYPE cb{n} AS ENUM ('a'); "
    "CREATE FUNCTION cc{n}(int) RETURNS cb{n} LANGUAGE sql IMMUTABLE AS $$SELECT 'a'::cb{n}$$;"
    "CREATE CAST (int AS cb{n}) WITH FUNCTION cc{n}(int);",
    "procedure and aggregate": "CREATE PROCEDURE pr{n}() LANGUAGE sql AS 'SELECT 1';"
    "CREATE AGGREGATE ag{n} (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');",
    "search configuration": "CREATE TEXT SEARCH CONFIGURATION tc{n} (COPY = simple);",
    "collation": "CREATE COLLATION cl{n} (provider = icu, locale = 'de'); CREATE TABLE ct{n} (x text COLLATE cl{n});",
    "statistics": "CREATE STATISTICS st{n} ON project_id, repository_id FROM artifact;",
    "comments": "COMMENT ON TABLE artifact IS E'a ''comment''\\n-- TOC entry 3 (class 1 OID 1)'; "
    "COMMENT ON DATABASE registry IS 'ours';",
    "settings of the database": "ALTER DATABASE registry SET work_mem = '5MB';"
    "ALTER DATABASE registry SET search_path = 'x', public;",
    "functions that shadow the system's": "CREATE FUNCTION public.format(text, name, name, name) RETURNS text "
    "LANGUAGE sql AS $$SELECT 'SELECT 1, pg_terminate_backend(0)'$$;",
}
ENCODINGS = ("UTF8", "UTF8", "UTF8", "LATIN1", "SQL_ASCII", "EUC_JP", "WIN1251")
# Not twice in one database.
_ONCE = frozenset(
    ("no rights for anybody", "settings of the database", "functions that shadow the system's", "comments")
)
# Letters that these encodings do not have.
_ONLY_WHERE = {"name from elsewhere": ("UTF8", "LATIN1"), "collation": ("UTF8", "LATIN1")}


@dataclass(frozen=True)
class World:
    """One odd database.

    Attributes:
        encoding: of `registry`.
        oddities: names out of ODDITIES, in the order in which they come.
    """

    encoding: str
    oddities: tuple[str, ...]

    @property
    def statements(self) -> list[tuple[str, str]]:
        """Each oddity and its SQL."""
        return [
            (name, ODDITIES[name].replace("{n_op}", "<" * number + "=").replace("{n}", str(number)))
            for number, name in enumerate(self.oddities, start=1)
        ]


def odd_world(seed: int) -> World:
    """The world of a seed; the first ones go through all oddities, so that few worlds have each of them."""
    choice = random.Random(seed)
    encoding = choice.choice(ENCODINGS)
    names = list(ODDITIES)
    share = [name for place, name in enumerate(names) if place % 7 == seed % 7]
    wanted = share + choice.choices(names, k=choice.randrange(4, 12))
    choice.shuffle(wanted)
    kept: list[str] = []
    for name in wanted:
        if name in _ONCE and name in kept:
            continue
        if encoding in _ONLY_WHERE.get(name, (encoding,)):
            kept.append(name)
    return World(encoding, tuple(kept))
