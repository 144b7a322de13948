"""Unpack Harbor's installer on this node and load its images, each once."""

import fcntl
import hashlib
import os
import shutil
import sys
import urllib.request
from typing import Any, Dict, List

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
    with urllib.request.urlopen(url, timeout=60) as source, open(path + ".partial", "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    os.replace(path + ".partial", path)


def unpack(archive: str, directory: str) -> None:
    """Unpack beside the directory, then move in what is not there yet or is the installer's own."""
    fresh = directory + ".harbor-ha.new"
    shutil.rmtree(fresh, ignore_errors=True)
    os.makedirs(fresh, 0o755)
    must(["tar", "-xzf", archive, "-C", fresh, "--strip-components=1", "--no-same-owner"], 1800)
    if not os.path.exists(os.path.join(fresh, "harbor.yml.tmpl")):
        shutil.rmtree(fresh)
        sys.exit("The installer has no harbor.yml.tmpl in its top directory.")
    if not os.path.isdir(directory):
        os.replace(fresh, directory)
        return
    for name in sorted(os.listdir(fresh)):
        target = os.path.join(directory, name)
        if name in KEPT and os.path.exists(target):
            continue
        if os.path.isdir(target) and not os.path.islink(target):
            shutil.rmtree(target)
        os.replace(os.path.join(fresh, name), target)
    shutil.rmtree(fresh)


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
    os.makedirs(given["download_dir"], exist_ok=True)
    with open(given["download_dir"] + "/.install.lock", "w") as guard:
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
