"""A standby from a verified base backup; the copy is made beside and swapped in when it is whole."""

import base64
import json

from blocks import HarborSite
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.hosts.directories import make_directory
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.cluster import as_record, read_configuration
from tasks.postgres.layout import STATE_DIR, layout_of, peers_of, slot_of
from tasks.postgres.on_node import base_backup
from tasks.postgres.promote import ensure_slots
from tasks.postgres.run_on_node import Authority, require_authority
from tasks.postgres.settings import conninfo
from tasks.postgres.sql import execute

_BASE_BACKUP = node_program(base_backup)

# For a database of 100 GB over 100 MB/s, three times over; what hangs longer is looked at by a human.
_COPY_S = 3 * 3600.0


def create_slot(site: HarborSite, primary: Host, standby_name: str) -> Outcome:
    """Create the standby's replication slot on the primary; it reserves WAL from now on."""
    made = execute(
        site,
        primary,
        "SELECT pg_create_physical_replication_slot(:'slot', true) "
        "WHERE NOT EXISTS (SELECT 1 FROM pg_replication_slots WHERE slot_name = :'slot')",
        slot=slot_of(standby_name),
    )
    slot = slot_of(standby_name)
    return changed(f"created slot {slot}") if made else unchanged(f"slot {slot} is there")


def copy_configuration(site: HarborSite, standby: Host, primary: Host) -> Outcome:
    """Give the standby the primary's configuration directory if it has none of its own."""
    conf = layout_of(site).conf
    if standby.run(["test", "-f", f"{conf}/postgresql.conf"], check=False).exit_status == 0:
        return unchanged(f"{conf} is there")
    packed = base64.b64encode(read_configuration(site, primary)).decode()
    # Unpacked beside and renamed: a directory that is there is whole.
    script = (
        'set -eu; rm -rf "$1.new"; mkdir "$1.new"; base64 -d | tar -C "$1.new" -xpf -; mv -T "$1.new" "$1"'
    )
    make_directory(standby, conf.rsplit("/", 1)[0], mode=0o755, owner="postgres")
    # As their user: root would unpack wherever a link leads that he puts there meanwhile.
    standby.run(["sh", "-c", script, "sh", conf], stdin=packed, user="postgres")
    standby.run(["systemctl", "daemon-reload"])
    return changed(f"copied {conf} from {primary.name}")


def clone(site: HarborSite, standby: Host, primary: Host, *, authority: Authority | None = None) -> Outcome:
    """Take a base backup beside the data directory, verify it, swap it in; the old directory is kept aside.

    A copy that was interrupted is taken again from the start. The standby's server must be stopped when a
    data directory is there.

    Raises:
        HarborHaError: not enough room, or the copy did not verify; the old directory is untouched.
    """
    layout = layout_of(site)
    # A missing slot fails the backup only after everything was copied; one that lost its WAL, too.
    peers = [peer.name for peer in peers_of(site, primary.name)]
    ensure_slots(site, primary, peers=peers, anew=[standby.name])
    size = int(execute(site, primary, "SELECT sum(pg_database_size(oid))::bigint FROM pg_database")[0][0])
    sysid = execute(site, primary, "SELECT system_identifier FROM pg_control_system()")[0][0]
    payload = {
        "data": layout.data,
        "bin": layout.bin,
        "unit": layout.unit,
        "conninfo": conninfo(site, standby.name).replace("target_session_attrs=read-write", "").strip(),
        "primary": primary.address,
        "port": str(layout.port),
        "slot": slot_of(standby.name),
        "needed_bytes": int(size * 1.2) + (64 << 20),
        "record": layout.record,
        "record_text": as_record(site.name, sysid),
        "archive": layout.archive,
        "sysid": sysid,
        "state_dir": STATE_DIR,
        "limit_s": _COPY_S,
        "authority": authority,
    }
    answer = standby.python(_BASE_BACKUP, payload, timeout=_COPY_S + 60)
    require_authority(answer, standby)
    if "problem" in answer:
        raise HarborHaError(
            answer["problem"],
            where=standby.name,
            meaning="The standby was not built; its old data directory, if any, is untouched.",
            remedy=answer["remedy"],
        )
    aside = [answer[name] for name in ("kept", "archive_kept") if answer.get(name)]
    kept = f", the old directory is kept as {' and '.join(aside)}" if aside else ""
    return changed(f"cloned {size / 1e6:.0f} MB from {primary.name}{kept}", **answer)


def build(site: HarborSite, standby: Host, primary: Host) -> Outcome:
    """Clone if the node holds no copy of the primary's database yet.

    Raises:
        HarborHaError: the node holds another database; it is not touched.
    """
    layout = layout_of(site)
    sysid = execute(site, primary, "SELECT system_identifier FROM pg_control_system()")[0][0]
    record = standby.read(layout.record)
    present = standby.run(["test", "-f", f"{layout.data}/global/pg_control"], check=False).exit_status == 0
    if present and record is not None and json.loads(record)["system_identifier"] == sysid:
        return unchanged("holds a copy of the primary's database")
    if present:
        raise HarborHaError(
            f"{layout.data} holds a database that is not this site's.",
            where=standby.name,
            meaning="It was not touched, and the site has no standby.",
            remedy="Move it away if it may go, then run bootstrap again.",
        )
    return clone(site, standby, primary)
