"""Unpack Harbor's installer on this node and load its images, each once."""

import fcntl
import hashlib
import os
import shutil
import sys
import urllib.request
from typing import Any, Dict, List

from tasks.on_node.files import (
    lock_file,
    made_file,
    make_directories,
    move,
    new_directory,
    opened_directory,
    put_in_place,
    remove_tree,
)
from tasks.on_node.lib import must, payload, record, reply, run, state

INSTALLED = "harbor_installed.json"
# The operator's and our own: whatever the installer brings under these names is not taken.
KEPT = ("harbor.yml", "common", "docker-compose.override.yml", "docker-compose.yml", "tls")


def sha256_of(path: str) -> str:
    """Hash a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as source:
        for block in iter(lambda: source.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def download(url: str, path: str) -> None:
    """Fetch the installer; it has its name only when it is complete."""
    name = os.path.basename(path)
    with urllib.request.urlopen(url, timeout=60) as source, opened_directory(os.path.dirname(path)) as where:
        with made_file(where, name + ".partial", 0o600) as target:
            shutil.copyfileobj(source, target, 1 << 20)
        put_in_place(where, name + ".partial", name)


def unpack(archive: str, directory: str) -> None:
    """Unpack beside the directory, then move in what is not there yet or is the installer's own."""
    fresh = directory + ".harbor-ha.new"
    remove_tree(fresh)
    new_directory(fresh, 0o755)
    must(["tar", "-xzf", archive, "-C", fresh, "--strip-components=1", "--no-same-owner"], 1800)
    if not os.path.exists(os.path.join(fresh, "harbor.yml.tmpl")):
        remove_tree(fresh)
        sys.exit("The installer has no harbor.yml.tmpl in its top directory.")
    if not os.path.isdir(directory):
        move(fresh, directory)
        return
    for name in sorted(os.listdir(fresh)):
        target = os.path.join(directory, name)
        if name in KEPT and os.path.exists(target):
            continue
        if os.path.isdir(target) and not os.path.islink(target):
            remove_tree(target)
        move(os.path.join(fresh, name), target)
    remove_tree(fresh)


def image_archives(directory: str) -> List[str]:
    """List the image archives that the installer brought; an online installer has none."""
    names = [name for name in os.listdir(directory) if name.startswith("harbor.") and ".tar" in name]
    return [os.path.join(directory, name) for name in sorted(names)]


def present(tags: List[str]) -> bool:
    """Tell whether the engine has all the images."""
    return not tags or run(["docker", "image", "inspect", "--format", "{{.Id}}", *tags], 60)[0] == 0


def load_images(directory: str) -> List[str]:
    """Load the images; their tags."""
    tags: List[str] = []
    for archive in image_archives(directory):
        for line in must(["docker", "load", "-i", archive], 1800).splitlines():
            if line.startswith("Loaded image: "):
                tags.append(line[len("Loaded image: ") :].strip())
    return sorted(tags)


def done_already(given: Dict[str, Any]) -> bool:
    """Tell whether this very installer was unpacked here and its images are still loaded."""
    seen = state(INSTALLED)
    here = os.path.exists(os.path.join(given["install_dir"], "harbor.yml.tmpl"))
    return here and seen.get("sha256") == given["sha256"] and present(seen.get("images", []))


def package_path(given: Dict[str, Any]) -> str:
    """Name the place of the installer's file on this node."""
    return "{}/installer-{}.tgz".format(given["download_dir"], given["sha256"][:16])


def install(given: Dict[str, Any]) -> Dict[str, Any]:
    """Do what is missing, alone on this node: a killed run may have left its own behind, which removes the package.

    The answer's `state`: done, unchanged, wanted (upload the file), mismatch.
    """
    make_directories(given["download_dir"], 0o755)
    with lock_file(given["download_dir"] + "/.install.lock") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        return install_alone(given)


def install_alone(given: Dict[str, Any]) -> Dict[str, Any]:
    """Do what is missing; see `install`."""
    if done_already(given):
        return {"state": "unchanged"}
    package = package_path(given)
    if not os.path.exists(package):
        if not given["url"]:
            return {"state": "wanted", "path": package}
        download(given["url"], package)
    found = sha256_of(package)
    if found != given["sha256"]:
        os.remove(package)
        return {"state": "mismatch", "found": found}
    unpack(package, given["install_dir"])
    images = load_images(given["install_dir"])
    record(INSTALLED, {"sha256": given["sha256"], "images": images})
    os.remove(package)
    return {"state": "done", "images": images}


if __name__ == "__main__":
    reply(install(payload()))
