"""Bind the registry's directory on the NAS to where Harbor's data volume has it, now and at boot.

And give the image data back to the registry's user where it belongs to another one.
"""

import os
import re
import sys
from typing import Any, Dict, List

from tasks.on_node.files import make_directories, new_directory
from tasks.on_node.lib import must, payload, read, reply, run, write
from tasks.on_node.registry_rights import HARBOR_UID, denied_paths, rights_command

FSTAB = "/etc/fstab"
# A million files on NFS at some hundred a second.
REPAIR_S = 3600.0


def mounts() -> Dict[str, str]:
    """Map each mount point of this machine to its device number."""
    found = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            fields = line.split()
            found[re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), fields[4])] = fields[2]
    return found


def fstab_with(text: str, source: str, target: str, nas: str) -> str:
    """Add the bind to fstab, unless a line for the target is there already."""
    for line in text.splitlines():
        words = line.split()
        if len(words) > 2 and not words[0].startswith("#") and words[1] == target:
            return text
    options = "bind,nofail,x-systemd.requires-mounts-for=" + nas
    separator = "" if not text or text.endswith("\n") else "\n"
    return text + separator + "{} {} none {} 0 0\n".format(source, target, options)


def denied(registry: str) -> List[str]:
    """List what the registry's user may not use; a NAS that does not answer ends the program."""
    return denied_paths(must(rights_command(registry), 60), registry)


def give_back(registry: str) -> List[str]:
    """Make the image data the registry's user's again, where that may not use it; what was done.

    Only then is the whole tree walked. `find` looks at a directory without following a link, and `-execdir` names a
    file by the directory that it stands in: whoever writes there cannot have root give away another file.
    """
    before = denied(registry)
    if not before:
        return []
    owner = "%d:%d" % (HARBOR_UID, HARBOR_UID)
    foreign = ["(", "!", "-uid", str(HARBOR_UID), "-o", "!", "-gid", str(HARBOR_UID), ")"]
    shut = ["-type", "d", "!", "-perm", "-u=rwx"]
    walk = ["find", registry, "-xdev"]
    problems = ""
    for what in (
        foreign + ["-execdir", "chown", "-h", owner, "{}", "+"],
        shut + ["-execdir", "chmod", "u+rwx", "{}", "+"],
    ):
        problems += run(walk + what, REPAIR_S)[2]
    left = denied(registry)
    if left:
        sys.exit(
            "The registry's user (%s) may not use %s, and root could not change that: %s. Where the NAS squashes root, "
            "change the owner on its server; where it is mounted read-only, mount it for writing."
            % (owner, ", ".join(left[:5]), problems.strip()[-500:] or "no error was told")
        )
    return ["gave %s back to user %d" % (", ".join(before[:5]), HARBOR_UID)]


def bind(given: Dict[str, Any]) -> List[str]:
    """Do what is missing; what was done."""
    nas, source, target = given["nas"], given["nas"] + "/registry", given["target"]
    if nas not in mounts():
        sys.exit("The NAS is not mounted at " + nas + "; images would go to this node's own disk.")
    done = []
    if not os.path.isdir(source):
        # prepare would change the owner of the whole tree one by one if the top were not its own already.
        new_directory(source, 0o755, (HARBOR_UID, HARBOR_UID))
        done.append("created " + source)
    done += give_back(source)
    # Byte for byte: a comment in another encoding than ours stays what it is.
    table = (read(FSTAB) or b"").decode("utf-8", "surrogateescape")
    wanted = fstab_with(table, source, target, nas).encode("utf-8", "surrogateescape")
    if write(FSTAB, wanted, 0o644, like=FSTAB):
        done.append("fstab")
    make_directories(target, 0o755)
    if not os.path.samefile(source, target):
        if os.listdir(target):
            sys.exit(
                target + " is not empty: images lie on this node's own disk. Move them to " + source + "."
            )
        must(["mount", "--bind", source, target], 60)
        done.append("bound " + target)
    return done


if __name__ == "__main__":
    reply(bind(payload()))
