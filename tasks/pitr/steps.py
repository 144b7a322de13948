"""WAL in the bucket and the way back to a point in time, as Prefect tasks."""

from tasks.again import BASE_BACKUP, PACKAGES
from tasks.pitr import base_backup as base
from tasks.pitr import install as installation
from tasks.pitr import restore
from tasks.step import step

install = step(installation.install, "Install pgBackRest", again=PACKAGES)
forget = step(installation.forget, "Remove the bucket's key from the node")
create_stanza = step(installation.create_stanza, "Make the database known to the repository")
base_backup = step(base.base_backup, "Make the base backup", again=BASE_BACKUP)

begin = step(restore.begin, "Note what is restored here")
restore_base = step(restore.restore_base, "Restore the base backup")
recover = step(restore.recover, "Replay WAL up to the time")
check = step(restore.check, "Check what must be true of the database")
