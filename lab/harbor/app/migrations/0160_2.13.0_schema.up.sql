-- 2.13 keeps a second audit log; old rows stay where they are.

CREATE TABLE audit_log_ext (
    id bigserial PRIMARY KEY,
    project_id bigint,
    operation varchar(50),
    resource_type varchar(50),
    resource varchar(255),
    username varchar(255),
    op_desc varchar(500),
    op_result boolean DEFAULT true,
    payload text,
    op_time timestamp DEFAULT now()
);
CREATE INDEX idx_audit_log_ext_op_time ON audit_log_ext (op_time);
