"""Part of the beacon: one psql that stays open, and the server's front door beside it.

A session that is open answers on while the postmaster hangs; nobody new gets in. So the door is knocked at as well.
"""

import contextlib
import json
import os
import socket
import subprocess
import time
from typing import Any, Dict, List, Optional

from tasks.on_node.pg_disk import ENGLISH
from tasks.on_node.pg_run import as_postgres

OPEN, SHUT, MUTE = "open", "shut", "mute"
# What every client may ask before it says who it is: "do you speak TLS?" One byte answers; nothing is logged, unless
# log_connections is on, which it is not by default.
_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
# Above what a server may stand still for: who knocks anew then is behind all who waited.
DOOR_LIMIT_S = 3.0
# A backend that hangs for so long is given up. Not sooner: each new session beside it is one of max_connections.
STUCK_S = 60.0

# On a primary and on a standby, PostgreSQL 13 to 18. Guarded by CASE: pg_current_wal_lsn() fails during recovery.
_QUESTION = """
SELECT row_to_json(told) FROM (SELECT %d AS number,
  pg_is_in_recovery() AS in_recovery,
  CASE WHEN pg_is_in_recovery() THEN (SELECT received_tli FROM pg_stat_wal_receiver)
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END AS timeline,
  CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn()
    ELSE pg_current_wal_lsn() END::text AS lsn,
  pg_last_wal_replay_lsn()::text AS replay_lsn,
  current_setting('default_transaction_read_only') = 'on' AS read_only,
  current_setting('synchronous_standby_names') AS sync_names,
  (SELECT row_to_json(r) FROM (SELECT status,
      extract(epoch FROM clock_timestamp() - last_msg_receipt_time)::float8 AS age_s
    FROM pg_stat_wal_receiver) r) AS receiver,
  coalesce((SELECT json_agg(s) FROM (SELECT application_name AS name, state, sync_state,
      CASE WHEN NOT pg_is_in_recovery()
        THEN pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint END AS lag_bytes,
      extract(epoch FROM replay_lag)::float8 AS lag_s
    FROM pg_stat_replication WHERE application_name LIKE 'ha\\_%%') s), '[]') AS senders
) told;
"""


class Talk:
    """The session. Its psql is replaced when it has ended, and not because it is slow."""

    def __init__(self, want: Dict[str, Any]) -> None:
        self.want = want
        self.process: Optional["subprocess.Popen[bytes]"] = None
        self.number = 0
        self.begun_at = 0.0

    def argv(self) -> List[str]:
        """Build the command; SQL comes on its input, one answer is one line of its output."""
        argv = [self.want["bin_dir"] + "/psql", "-XAtqw", "-v", "ON_ERROR_STOP=1"]
        argv += ["-h", self.want["socket_dir"], "-p", str(self.want["port"])]
        return as_postgres(argv + ["-d", "postgres", "-f", "-"])

    def open(self) -> "subprocess.Popen[bytes]":
        """Give the psql that runs, or start one."""
        if self.process is None or self.process.poll() is not None:
            limits = {"PGCONNECT_TIMEOUT": "2", "PGAPPNAME": "harbor-ha-beacon"}
            # A server that stood still for two seconds would end its session for a shorter limit.
            # It is left idle for as long as this program runs, and asks once in half a second.
            limits["PGOPTIONS"] = "-c statement_timeout=10000 -c idle_session_timeout=0"
            if int(self.want["major"]) < 14:
                limits["PGOPTIONS"] = "-c statement_timeout=10000"
            self.process = subprocess.Popen(
                self.argv(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=dict(ENGLISH, **limits),
                cwd="/",
            )
        return self.process

    def ask(self) -> Dict[str, Any]:
        """Ask once. Hangs with the server; raises RuntimeError when psql has ended, ValueError for no answer."""
        process = self.open()
        self.number, self.begun_at = self.number + 1, time.monotonic()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write((_QUESTION % self.number).replace("\n", " ").encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = b""
        finally:
            self.begun_at = 0.0
        if not line:
            self.close()
            raise RuntimeError("the session has ended")
        told = json.loads(line.decode("utf-8", "replace"))
        if not isinstance(told, dict) or told.get("number") != self.number:
            self.close()
            raise ValueError("an answer to another question")
        return dict(told)

    def give_up_what_is_stuck(self) -> None:
        """End a session that has hung for a minute, though nobody may be the better for it."""
        if self.begun_at and time.monotonic() - self.begun_at > STUCK_S:
            self.close()

    def close(self) -> None:
        """End the session; a psql that hangs is not waited for."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(OSError):
                self.process.kill()


def knock(want: Dict[str, Any]) -> str:
    """Ask the postmaster for a byte, as every new client does: `open`, `shut` (nobody there) or `mute`."""
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(DOOR_LIMIT_S)
            door.connect(os.path.join(want["socket_dir"], ".s.PGSQL.%s" % want["port"]))
            door.sendall(_SSL_REQUEST)
            return OPEN if door.recv(1) in (b"S", b"N") else SHUT
    except (ConnectionError, FileNotFoundError):
        return SHUT
    except OSError:
        return MUTE
