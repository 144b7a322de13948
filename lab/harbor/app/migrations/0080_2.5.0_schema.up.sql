-- 2.5 knows what belongs to an artifact: signatures.

CREATE TABLE artifact_accessory (
    id serial PRIMARY KEY,
    artifact_id bigint,
    subject_artifact_id bigint,
    type varchar(256),
    size bigint,
    digest varchar(1024),
    creation_time timestamp DEFAULT now(),
    UNIQUE (artifact_id, subject_artifact_id)
);
