"""The one question that the probe asks a running server."""

# Valid on a primary and on a standby, PostgreSQL 13 to 18. A row instead of json_build_object(), which takes
# 50 pairs at most. Guarded by CASE: pg_current_wal_lsn() and pg_walfile_name() fail during recovery,
# pg_is_wal_replay_paused() fails outside of it.
#
# `timeline` is the true one of a primary: the control file still names the old one after a promotion, until
# the next checkpoint. A standby's is asked by the probe with IDENTIFY_SYSTEM.
FACTS_QUERY = """
SELECT row_to_json(facts) FROM (SELECT
  current_setting('server_version_num')::int AS version_num,
  (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
  pg_is_in_recovery() AS in_recovery,
  extract(epoch FROM pg_postmaster_start_time())::float8 AS started_at,
  current_setting('data_directory') AS data_directory,
  CASE WHEN pg_is_in_recovery() THEN NULL
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END AS timeline,
  CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_lsn()::text END AS write_lsn,
  pg_last_wal_receive_lsn()::text AS receive_lsn,
  pg_last_wal_replay_lsn()::text AS replay_lsn,
  CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END AS replay_paused,
  current_setting('default_transaction_read_only') = 'on' AS read_only,
  current_setting('synchronous_standby_names') AS sync_names,
  current_setting('archive_mode') <> 'off' AS archiving,
  current_setting('max_wal_senders')::int
    - (SELECT count(*) FROM pg_stat_replication) AS free_senders,
  current_setting('max_replication_slots')::int
    - (SELECT count(*) FROM pg_replication_slots) AS free_slots,
  (SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL) AS hba_errors,
  (SELECT count(*) FROM pg_stat_progress_basebackup) AS base_backups,
  (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8
     FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()) AS oldest_transaction_s,
  (SELECT row_to_json(a) FROM (SELECT failed_count, last_failed_wal, last_archived_wal,
      extract(epoch FROM last_failed_time)::float8 AS last_failed_at,
      extract(epoch FROM last_archived_time)::float8 AS last_archived_at
    FROM pg_stat_archiver) a) AS archiver,
  (SELECT row_to_json(r) FROM (SELECT status, sender_host, slot_name, received_tli,
      flushed_lsn::text AS flushed_lsn,
      extract(epoch FROM clock_timestamp() - last_msg_receipt_time)::float8 AS message_age_s,
      extract(epoch FROM current_setting('wal_receiver_timeout')::interval)::float8 AS timeout_s
    FROM pg_stat_wal_receiver) r) AS receiver,
  coalesce((SELECT json_agg(s) FROM (SELECT application_name, host(client_addr) AS client_addr, state,
      sync_state, replay_lsn::text AS replay_lsn,
      CASE WHEN NOT pg_is_in_recovery()
        THEN pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint END AS lag_bytes,
      extract(epoch FROM clock_timestamp() - reply_time)::float8 AS reply_age_s
    FROM pg_stat_replication WHERE application_name <> 'harbor-ha-probe') s), '[]') AS senders,
  coalesce((SELECT json_agg(l) FROM (SELECT slot_name, slot_type, active, restart_lsn::text AS restart_lsn,
      wal_status, safe_wal_size, coalesce(xmin, catalog_xmin) IS NOT NULL AS has_xmin,
      greatest(age(xmin), age(catalog_xmin)) AS xmin_age,
      CASE WHEN NOT pg_is_in_recovery()
        THEN pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint END AS held_bytes
    FROM pg_replication_slots) l), '[]') AS slots,
  (SELECT min(substr(name, 9) COLLATE "C") FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$') AS oldest_wal,
  pg_size_bytes(current_setting('wal_segment_size')) AS wal_segment_size,
  coalesce((SELECT json_agg(c) FROM (SELECT host(client_addr) AS address, count(*) AS sessions
    FROM pg_stat_activity
    WHERE datname = :'database' AND client_addr IS NOT NULL AND backend_type = 'client backend'
    GROUP BY client_addr) c), '[]') AS clients
) facts;
"""
