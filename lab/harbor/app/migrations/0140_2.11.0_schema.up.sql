-- 2.11 makes bills of materials.

CREATE TABLE sbom_report (
    id serial PRIMARY KEY,
    uuid varchar(64) NOT NULL UNIQUE,
    artifact_id integer NOT NULL,
    registration_uuid varchar(64) NOT NULL,
    mime_type varchar(256) NOT NULL,
    media_type varchar(256) NOT NULL,
    report json
);
