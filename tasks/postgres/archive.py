"""WAL archiving that never leaves half a segment, never overwrites another one, and does not fill the disk."""

from blocks import HarborSite
from tasks.hosts.connection import Host
from tasks.hosts.directories import make_directory
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.layout import PROGRAM_DIR, layout_of

# A segment that is there already and equal was archived before a crash: success. One that differs comes
# from another history of the same timeline: never overwritten. `ln` fails if the name exists, `mv` would not.
# What is a week old no rejoin needs any more, and nobody else would ever remove it; histories are kept.
ARCHIVE_WAL = """#!/bin/sh
# archive-wal SOURCE TARGET: copy a WAL segment so that TARGET is whole or absent.
set -eu
source=$1
target=$2
if [ -e "$target" ]; then
    cmp -s "$source" "$target" && exit 0
    echo "archive-wal: $target exists and differs; two histories write to one archive" >&2
    exit 1
fi
partial="$target.$(hostname).$$.partial"
trap 'rm -f "$partial"' EXIT
cp "$source" "$partial"
sync "$partial"
ln "$partial" "$target"
archive=$(dirname "$target")
sync "$archive"
find "$archive" -maxdepth 1 -type f -name '__SEGMENT__' -mtime +6 -delete || true
find "$archive" -maxdepth 1 -type f -name '*.partial' -mtime +0 -delete || true
""".replace("__SEGMENT__", "[0-9A-F]" * 24)


def install(site: HarborSite, host: Host) -> Outcome:
    """Put the archive program and its directory on the node."""
    layout = layout_of(site)
    program = host.put(f"{PROGRAM_DIR}/archive-wal", ARCHIVE_WAL, mode=0o755)
    ready = host.run(["stat", "-c", "%U %a", layout.archive], check=False).stdout.strip() == "postgres 700"
    if not ready:
        make_directory(host, layout.archive, mode=0o700, owner="postgres")
    if program or not ready:
        return changed(f"WAL is archived to {layout.archive}")
    return unchanged(f"WAL is archived to {layout.archive}")
