"""Read the Harbor that this node has, wherever it lies: from its containers, not from a guess. Changes nothing."""

import glob
import os
import re
import time
from typing import Any, Dict, List, Optional

from tasks.harbor.on_node.containers import environment_of, inspect
from tasks.harbor.on_node.secret_files import pem_form
from tasks.on_node.lib import payload, read, reply, run, state

# Fixed by Harbor's docker-compose.yml in every version.
CORE, STORE, DATABASE = "harbor-core", "registry", "harbor-db"
# Of tasks/harbor/on_node/install.py, which cannot be joined with this program.
INSTALLED = "harbor_installed.json"
# Of an adoption that was begun here: where the old Harbor lies, also when its containers are gone.
ADOPTION = "harbor_adoption.json"
OPEN = ("copying", "moving", "moved", "returning")
LABEL = "com.docker.compose.project"
# Of core's environment: what says how it runs and is no secret.
TOLD = (
    "POSTGRESQL_HOST",
    "POSTGRESQL_PORT",
    "POSTGRESQL_DATABASE",
    "POSTGRESQL_USERNAME",
    "POSTGRESQL_SSLMODE",
    "EXT_ENDPOINT",
    "REGISTRY_STORAGE_PROVIDER_NAME",
)
BLOBS = "docker/registry/v2/blobs/sha256"
# A terabyte over NFS takes minutes to count; a look of bootstrap does not.
COUNT_LIMIT_S = 10.0


def mounts_of(description: Optional[Dict[str, Any]]) -> Dict[str, str]:
    """Give a container's mounts: what of this machine lies where in it."""
    mounts = (description or {}).get("Mounts") or []
    return {str(mount.get("Destination", "")).rstrip("/"): str(mount.get("Source", "")) for mount in mounts}


def directory_of(core: Dict[str, Any]) -> str:
    """Find the directory that compose was called in: by its label, or by a file that core is given from there."""
    label = (core["Config"].get("Labels") or {}).get(LABEL + ".working_dir")
    if label:
        return str(label).rstrip("/")
    source = mounts_of(core).get("/etc/core/app.conf", "")
    return source.split("/common/config/")[0] if "/common/config/" in source else ""


def without_tail(path: str, tail: str) -> Optional[str]:
    """Take a known end off a path; None where it has another end."""
    return path[: -len(tail)] if path.endswith(tail) else None


def data_volume_of(core: Dict[str, Any]) -> Optional[str]:
    """Find data_volume by what core is given from there."""
    mounts = mounts_of(core)
    found = without_tail(mounts.get("/etc/core/key", ""), "/secret/keys/secretkey")
    return found or mounts.get("/data") or None


def version_of_image(image: str) -> str:
    """Read the version off an image's name; the registry before it may have a port."""
    found = re.search(r":v?(\d+\.\d+\.\d+)[^/]*$", image)
    return found.group(1) if found else ""


def services_of(core: Dict[str, Any]) -> List[str]:
    """List the services of core's compose project, by their label."""
    project = (core["Config"].get("Labels") or {}).get(LABEL)
    if not project:
        return []
    form = '{{.Label "com.docker.compose.service"}}'
    argv = ["docker", "ps", "--all", "--filter", "label=%s=%s" % (LABEL, project), "--format", form]
    return sorted(set(run(argv, 30)[1].split()))


def same_place(path: Optional[str], known: List[str]) -> Optional[str]:
    """Call a path by the name that the site file has for it, where a link leads to the same place."""
    for name in known if path else []:
        if os.path.realpath(str(path)) == os.path.realpath(name):
            return name
    return path


def count_blobs(storage: str, limit: float) -> Dict[str, Any]:
    """Count blobs and their bytes until the time is over."""
    deadline = time.monotonic() + limit
    count = size = 0
    for shelf in sorted(glob.glob(os.path.join(storage, BLOBS, "*"))):
        if time.monotonic() > deadline:
            return {"count": count, "bytes": size, "whole": False}
        for name in names_in(shelf):
            try:
                size += os.stat(os.path.join(shelf, name, "data")).st_size
                count += 1
            except OSError:
                continue
    return {"count": count, "bytes": size, "whole": True}


def names_in(directory: str) -> List[str]:
    """List a directory; nothing where it cannot be read."""
    try:
        return os.listdir(directory)
    except OSError:
        return []


def units_of(directory: str, places: List[str]) -> List[str]:
    """Name the systemd units that name a directory: whoever starts that Harbor at boot."""
    found = []
    for place in places:
        for path in sorted(glob.glob(os.path.join(place, "*.service"))):
            text = b"" if os.path.islink(path) else read(path) or b""
            if re.search(re.escape(directory).encode() + rb"(?![\w.-])", text):
                found.append(os.path.basename(path))
    return sorted(set(found))


def text_of(path: str) -> Optional[str]:
    """Read a file of the operator's, bytes that are no UTF-8 kept; None when there is none."""
    data = read(path)
    return None if data is None else data.decode("utf-8", "surrogateescape")


def from_containers(core: Dict[str, Any]) -> Dict[str, Any]:
    """Read how a Harbor runs, or ran when its containers were stopped."""
    environment, storage = environment_of(core), inspect(STORE)
    return {
        "directory": directory_of(core),
        "runs": bool(core["State"]["Running"]),
        "version": version_of_image(str(core["Config"].get("Image", ""))),
        "services": services_of(core),
        "data_volume": data_volume_of(core),
        "images_at": mounts_of(storage).get("/storage"),
        "database_at": mounts_of(inspect(DATABASE)).get("/var/lib/postgresql/data"),
        "core": {name: environment[name] for name in TOLD if name in environment},
    }


def look(given: Dict[str, Any]) -> Dict[str, Any]:
    """Read the Harbor whose core this node's engine has, else what lies in the site's directory.

    `found` is false where there is neither.
    """
    core = inspect(CORE)
    answer: Dict[str, Any] = {"directory": given["install_dir"], "runs": False}
    answer.update(from_containers(core) if core is not None else {})
    adoption = state(ADOPTION)
    answer["adoption"] = str(adoption.get("phase") or "")
    answer["adoption_was"] = str(adoption.get("was") or "")
    if answer["adoption"] in OPEN:
        # What was found before the first change: since then the old Harbor may have been taken down for the new one.
        runs = answer["runs"] and answer["directory"] == adoption["found"]["directory"]
        answer.update(adoption["found"], runs=runs)
    volume = given["data_volume"]
    answer["directory"] = same_place(answer["directory"], [given["install_dir"]])
    answer["data_volume"] = same_place(answer.get("data_volume"), [volume])
    answer["images_at"] = same_place(answer.get("images_at"), [volume + "/registry", given["nas_images"]])
    home = answer["directory"] or given["install_dir"]
    answer["harbor_yml"] = text_of(home + "/harbor.yml")
    answer["override"] = text_of(home + "/docker-compose.override.yml")
    answer["found"] = core is not None or answer["harbor_yml"] is not None or answer["adoption"] in OPEN
    answer["units"] = units_of(home, given["unit_directories"]) if answer["found"] else []
    answer["token_key_at"] = (answer["data_volume"] or volume) + "/secret/core/private_key.pem"
    answer["token_key"] = pem_form(answer["token_key_at"])
    # What this software has installed is no find.
    if answer["images_at"] and (not state(INSTALLED) or answer["directory"] != given["install_dir"]):
        answer["blobs"] = count_blobs(answer["images_at"], given.get("count_limit_s", COUNT_LIMIT_S))
    return answer


if __name__ == "__main__":
    reply(look(payload()))
