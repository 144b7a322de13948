"""The secret that signs backups: where the site file has none, it is made once and kept on the orchestrator."""

import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from blocks.site import HarborSite
from blocks.store import copy_path

_BYTES = 32


def signing_secret_path(name: str) -> Path:
    """Where a secret that was made here lies: `${HARBOR_HA_HOME:-~/.harbor-ha}/keys/<site>-signing-secret`."""
    return copy_path(name).parents[1] / "keys" / f"{name}-signing-secret"


def with_signing_secret(site: HarborSite) -> tuple[HarborSite, Path | None]:
    """Give the site a secret to sign its backups with, unless it has one or makes no backups.

    Returns:
        the site, and the file of a secret that was made just now: its copy belongs into the safe.
    """
    if site.oss is None or site.backup.signing_secret is not None:
        return site, None
    path = signing_secret_path(site.name)
    made = not path.exists()
    if made:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Complete or absent: half a secret would be taken for one. Two that apply at once agree on the first.
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.touch(mode=0o600)
        unfinished.write_text(f"{secrets.token_hex(_BYTES)}\n")
        try:
            os.link(unfinished, path)
        except FileExistsError:
            made = False
        finally:
            unfinished.unlink()
    policy = site.backup.model_copy(update={"signing_secret": SecretStr(path.read_text())})
    return site.model_copy(update={"backup": policy}), path if made else None
