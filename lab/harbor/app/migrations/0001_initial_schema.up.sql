-- Harbor's table names and the columns that operators and backups look at; no extensions, one trigger function.

CREATE FUNCTION update_update_time_at_column() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.update_time = now();
    RETURN NEW;
END;
$$;

CREATE TABLE harbor_user (
    user_id serial PRIMARY KEY,
    username varchar(255) UNIQUE,
    email varchar(255) UNIQUE,
    password varchar(64) NOT NULL DEFAULT '',
    password_version varchar(16) NOT NULL DEFAULT 'sha256',
    realname varchar(255) NOT NULL DEFAULT '',
    comment varchar(255),
    deleted boolean NOT NULL DEFAULT false,
    salt varchar(64),
    sysadmin_flag boolean NOT NULL DEFAULT false,
    creation_time timestamp DEFAULT now(),
    update_time timestamp DEFAULT now()
);
CREATE TRIGGER harbor_user_update_time BEFORE UPDATE ON harbor_user
    FOR EACH ROW EXECUTE PROCEDURE update_update_time_at_column();

CREATE TABLE registry (
    id serial PRIMARY KEY,
    name varchar(256) UNIQUE,
    url varchar(256),
    credential_type varchar(16),
    access_key varchar(255),
    access_secret varchar(4096),
    type varchar(32) NOT NULL,
    insecure boolean NOT NULL DEFAULT false,
    description varchar(1024),
    health varchar(16),
    creation_time timestamp DEFAULT now(),
    update_time timestamp DEFAULT now()
);
CREATE TRIGGER registry_update_time BEFORE UPDATE ON registry
    FOR EACH ROW EXECUTE PROCEDURE update_update_time_at_column();

CREATE TABLE project (
    project_id serial PRIMARY KEY,
    owner_id integer NOT NULL REFERENCES harbor_user (user_id),
    name varchar(255) NOT NULL UNIQUE,
    registry_id bigint,
    deleted boolean NOT NULL DEFAULT false,
    creation_time timestamp DEFAULT now(),
    update_time timestamp DEFAULT now()
);
CREATE TRIGGER project_update_time BEFORE UPDATE ON project
    FOR EACH ROW EXECUTE PROCEDURE update_update_time_at_column();

CREATE TABLE project_metadata (
    id serial PRIMARY KEY,
    project_id integer NOT NULL REFERENCES project (project_id),
    name varchar(255) NOT NULL,
    value varchar(255),
    creation_time timestamp DEFAULT now(),
    update_time timestamp DEFAULT now(),
    UNIQUE (project_id, name)
);

CREATE TABLE project_member (
    id serial PRIMARY KEY,
    project_id integer NOT NULL,
    entity_id integer NOT NULL,
    entity_type char(1) NOT NULL DEFAULT 'u',
    role integer NOT NULL,
    creation_time timestamp DEFAULT now(),
    update_time timestamp DEFAULT now(),
    UNIQUE (project_id, entity_id, entity_type)
);

CREATE TABLE repository (
    repository_id serial PRIMARY KEY,
    name varchar(255) NOT NULL UNIQUE,
    project_id integer NOT NULL REFERENCES project (project_id),
    description text,
    pull_count bigint NOT NULL DEFAULT 0,
    star_count integer NOT NULL DEFAULT 0,
    creation_time timestamp DEFAULT now(),
    update_time timestamp DEFAULT now()
);
CREATE TRIGGER repository_update_time BEFORE UPDATE ON repository
    FOR EACH ROW EXECUTE PROCEDURE update_update_time_at_column();

CREATE TABLE artifact (
    id serial PRIMARY KEY,
    type varchar(255) NOT NULL,
    media_type varchar(255) NOT NULL,
    manifest_media_type varchar(255) NOT NULL,
    artifact_type varchar(255),
    project_id integer NOT NULL,
    repository_id integer NOT NULL REFERENCES repository (repository_id),
    repository_name varchar(255) NOT NULL,
    digest varchar(255) NOT NULL,
    size bigint,
    push_time timestamp DEFAULT now(),
    pull_time timestamp,
    extra_attrs text,
    annotations jsonb,
    icon varchar(255),
    UNIQUE (repository_id, digest)
);
CREATE INDEX idx_artifact_push_time ON artifact (push_time);

CREATE TABLE artifact_reference (
    id serial PRIMARY KEY,
    parent_id integer NOT NULL REFERENCES artifact (id),
    child_id integer NOT NULL REFERENCES artifact (id),
    child_digest varchar(255) NOT NULL,
    platform varchar(1024),
    urls varchar(1024),
    annotations jsonb,
    UNIQUE (parent_id, child_id)
);

CREATE TABLE artifact_trash (
    id serial PRIMARY KEY,
    media_type varchar(255) NOT NULL,
    manifest_media_type varchar(255) NOT NULL,
    repository_name varchar(255) NOT NULL,
    digest varchar(255) NOT NULL,
    creation_time timestamp DEFAULT now(),
    UNIQUE (repository_name, digest)
);

CREATE TABLE artifact_blob (
    id serial PRIMARY KEY,
    digest_af varchar(255) NOT NULL,
    digest_blob varchar(255) NOT NULL,
    creation_time timestamp DEFAULT now(),
    UNIQUE (digest_af, digest_blob)
);
CREATE INDEX idx_artifact_blob_digest_blob ON artifact_blob (digest_blob);

CREATE TABLE blob (
    id serial PRIMARY KEY,
    digest varchar(255) NOT NULL UNIQUE,
    content_type varchar(1024) NOT NULL,
    size bigint NOT NULL,
    status varchar(255) NOT NULL DEFAULT 'none',
    version bigint NOT NULL DEFAULT 0,
    creation_time timestamp DEFAULT now(),
    update_time timestamp DEFAULT now()
);

CREATE TABLE project_blob (
    id serial PRIMARY KEY,
    project_id integer NOT NULL,
    blob_id integer NOT NULL REFERENCES blob (id),
    creation_time timestamp DEFAULT now(),
    UNIQUE (project_id, blob_id)
);

CREATE TABLE tag (
    id serial PRIMARY KEY,
    repository_id integer NOT NULL REFERENCES repository (repository_id),
    artifact_id integer NOT NULL REFERENCES artifact (id),
    name varchar(255) NOT NULL,
    push_time timestamp DEFAULT now(),
    pull_time timestamp,
    UNIQUE (repository_id, name)
);

CREATE TABLE harbor_label (
    id serial PRIMARY KEY,
    name varchar(128) NOT NULL,
    description text,
    color varchar(16),
    level char(1) NOT NULL DEFAULT 'u',
    scope char(1) NOT NULL,
    project_id integer,
    deleted boolean NOT NULL DEFAULT false,
    creation_time timestamp DEFAULT now(),
    update_time timestamp DEFAULT now(),
    UNIQUE (name, scope, project_id)
);

CREATE TABLE label_reference (
    id serial PRIMARY KEY,
    label_id bigint NOT NULL REFERENCES harbor_label (id),
    artifact_id bigint NOT NULL REFERENCES artifact (id),
    creation_time timestamp DEFAULT now(),
    update_time timestamp DEFAULT now(),
    UNIQUE (label_id, artifact_id)
);

CREATE TABLE robot (
    id serial PRIMARY KEY,
    name varchar(255) NOT NULL UNIQUE,
    description varchar(1024),
    project_id integer,
    secret varchar(2048),
    salt varchar(64),
    expiresat bigint NOT NULL DEFAULT -1,
    duration integer NOT NULL DEFAULT -1,
    disabled boolean NOT NULL DEFAULT false,
    visible boolean NOT NULL DEFAULT true,
    creation_time timestamp DEFAULT now(),
    update_time timestamp DEFAULT now()
);

CREATE TABLE properties (
    id serial PRIMARY KEY,
    k varchar(64) NOT NULL UNIQUE,
    v varchar(4096) NOT NULL
);

CREATE TABLE quota (
    id serial PRIMARY KEY,
    reference varchar(255) NOT NULL,
    reference_id varchar(255) NOT NULL,
    hard jsonb NOT NULL,
    creation_time timestamp DEFAULT now(),
    update_time timestamp DEFAULT now(),
    UNIQUE (reference, reference_id)
);

CREATE TABLE quota_usage (
    id serial PRIMARY KEY,
    reference varchar(255) NOT NULL,
    reference_id varchar(255) NOT NULL,
    used jsonb NOT NULL,
    creation_time timestamp DEFAULT now(),
    update_time timestamp DEFAULT now(),
    UNIQUE (reference, reference_id)
);

CREATE TABLE schedule (
    id serial PRIMARY KEY,
    vendor_type varchar(64),
    vendor_id integer,
    cron varchar(64),
    cron_type varchar(64),
    callback_func_name varchar(128),
    callback_func_param text,
    extra_attrs json,
    revision integer NOT NULL DEFAULT 0,
    creation_time timestamp DEFAULT now(),
    update_time timestamp DEFAULT now()
);

CREATE TABLE execution (
    id serial PRIMARY KEY,
    vendor_type varchar(64) NOT NULL,
    vendor_id integer,
    status varchar(16),
    status_message text,
    trigger varchar(16) NOT NULL,
    extra_attrs json,
    revision integer NOT NULL DEFAULT 0,
    start_time timestamp DEFAULT now(),
    update_time timestamp DEFAULT now(),
    end_time timestamp
);

CREATE TABLE task (
    id serial PRIMARY KEY,
    execution_id integer NOT NULL REFERENCES execution (id),
    vendor_type varchar(64),
    job_id varchar(64),
    status varchar(16) NOT NULL,
    status_code integer NOT NULL DEFAULT 0,
    status_message text,
    run_count integer,
    extra_attrs json,
    creation_time timestamp DEFAULT now(),
    start_time timestamp,
    update_time timestamp,
    end_time timestamp
);

CREATE TABLE job_log (
    log_id serial PRIMARY KEY,
    job_uuid varchar(64) NOT NULL UNIQUE,
    content text,
    creation_time timestamp DEFAULT now()
);

CREATE TABLE audit_log (
    id serial PRIMARY KEY,
    project_id integer NOT NULL,
    operation varchar(20) NOT NULL,
    resource_type varchar(255) NOT NULL,
    resource varchar(1024) NOT NULL,
    username varchar(255) NOT NULL,
    op_time timestamp DEFAULT now()
);
CREATE INDEX idx_audit_log_op_time ON audit_log (op_time);

CREATE TABLE replication_policy (
    id serial PRIMARY KEY,
    name varchar(256) UNIQUE,
    description text,
    src_registry_id integer,
    dest_registry_id integer,
    enabled boolean NOT NULL DEFAULT true,
    creation_time timestamp DEFAULT now(),
    update_time timestamp DEFAULT now()
);

CREATE TABLE scanner_registration (
    id serial PRIMARY KEY,
    uuid varchar(64) NOT NULL UNIQUE,
    url varchar(256) NOT NULL UNIQUE,
    name varchar(128) NOT NULL UNIQUE,
    description varchar(1024),
    immutable boolean NOT NULL DEFAULT false,
    is_default boolean NOT NULL DEFAULT false,
    create_time timestamp DEFAULT now(),
    update_time timestamp DEFAULT now()
);
