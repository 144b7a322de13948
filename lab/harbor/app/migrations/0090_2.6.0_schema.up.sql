-- 2.6 keeps files of its own in the registry.

CREATE TABLE system_artifact (
    id serial PRIMARY KEY,
    repository varchar(256) NOT NULL,
    digest varchar(255) NOT NULL DEFAULT '',
    size bigint NOT NULL DEFAULT 0,
    vendor varchar(255) NOT NULL DEFAULT '',
    type varchar(255) NOT NULL DEFAULT '',
    extra_attrs text NOT NULL DEFAULT '',
    create_time timestamp DEFAULT now(),
    UNIQUE (repository, digest, vendor)
);
