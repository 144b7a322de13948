"""Part of node programs: what pg_controldata says, if it can be believed."""

import os
import re
import subprocess

# Printed with status 0: to the output until version 15, to the errors since. Timeline 254 was once taken for a fact.
_UNTRUSTWORTHY = re.compile(r"results\s+below\s+are\s+untrustworthy|invalid WAL segment size", re.IGNORECASE)


def untrustworthy(said: str) -> bool:
    """Tell whether pg_controldata warns of what it prints."""
    return bool(_UNTRUSTWORTHY.search(said))


def control_text(bin_dir: str, data: str, limit: float = 20) -> str:
    """Return what pg_controldata prints, in English; empty when there is no control file that can be believed.

    Args:
        bin_dir: where PostgreSQL's programs are.
        data: the data directory.
        limit: seconds.

    Raises:
        OSError, subprocess.TimeoutExpired: the program is not there, or the disk hangs.
    """
    argv = [bin_dir + "/pg_controldata", "-D", data]
    english = dict(os.environ, LC_ALL="C", LANGUAGE="C")
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=limit, env=english)
    printed = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0 or untrustworthy(printed + done.stderr.decode("utf-8", "replace")):
        return ""
    return printed
