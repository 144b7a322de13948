"""Part of node programs: the one row that proves writing and replication."""

# In the database `postgres`, which Harbor does not use.
HEARTBEAT = """
SET client_min_messages = error;
CREATE SCHEMA IF NOT EXISTS harbor_ha;
CREATE TABLE IF NOT EXISTS harbor_ha.heartbeat (
  id int PRIMARY KEY CHECK (id = 1), operation text NOT NULL, at timestamptz NOT NULL);
INSERT INTO harbor_ha.heartbeat VALUES (1, :'operation', clock_timestamp())
  ON CONFLICT (id) DO UPDATE SET operation = excluded.operation, at = excluded.at;
"""
