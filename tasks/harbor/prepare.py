"""harbor.yml on the node, and Harbor's `./prepare` that turns it into the containers' configuration."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from blocks import HarborSite
from tasks.errors import HarborHaError, Refused
from tasks.harbor import config
from tasks.harbor.lint import lint
from tasks.harbor.on_node import prepare as program
from tasks.harbor.on_node import read_config
from tasks.harbor.versions import component_flags, parse_version
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged

_PROGRAM = node_program(program)
_READ_CONFIG = node_program(read_config)

# Making a 4096-bit token key takes up to ten seconds on a small machine, loading the image the rest.
PREPARE_TIMEOUT_S = 240.0


class PrepareFailed(HarborHaError):
    """Harbor's prepare refused the configuration, or compose its result; the files from before were put back."""


@dataclass(frozen=True)
class ConfigFiles:
    """What a node has of Harbor's configuration.

    Attributes:
        harbor_yml, template: texts; None where the file is missing.
        seals: mode and SHA-256 of the certificate's and the key's file, by path; "" for a missing one.
    """

    harbor_yml: str | None
    template: str | None
    seals: Mapping[str, str]


def read_files(site: HarborSite, host: Host) -> ConfigFiles:
    """Look at a node's configuration files, in one round trip."""
    given = {"install_dir": site.harbor.install_dir.rstrip("/"), "sealed": config.tls_paths(site)}
    return ConfigFiles(**host.python(_READ_CONFIG, given))


def configure(site: HarborSite, host: Host, *, database_host: str) -> Outcome:
    """Write harbor.yml and the certificate files; what the operator added to harbor.yml stays.

    Args:
        site: the settings.
        host: the node.
        database_host: address of the current primary.

    Raises:
        Refused: the settings would not survive prepare; nothing was changed.
        HarborHaError: the installer was not unpacked.
    """
    files = read_files(site, host)
    base = files.harbor_yml if files.harbor_yml is not None else files.template
    if base is None:
        raise HarborHaError(
            f"There is no harbor.yml.tmpl in {site.harbor.install_dir}.",
            where=host.name,
            remedy="Unpack the installer first; bootstrap does it.",
        )
    text = config.render(base, site, database_host)
    certificate, key = config.tls_paths(site)
    wanted = {
        certificate: (_ended(site.harbor.certificate), 0o644),
        key: (_ended(site.harbor.certificate_key.get_secret_value()), 0o600),
    }
    written = []
    for path, (pem, mode) in wanted.items():
        if files.seals[path] != f"{mode:o} {hashlib.sha256(pem.encode()).hexdigest()}":
            host.put(path, pem, mode=mode)
            written.append(path.rpartition("/")[2])
    if text != files.harbor_yml:
        # It holds all the passwords; the installer's own harbor.yml is readable by everybody.
        host.put(f"{site.harbor.install_dir.rstrip('/')}/harbor.yml", text, mode=0o600)
        gone = config.removed(base, parse_version(site.harbor.version))
        written.append(f"harbor.yml (made remarks of {', '.join(gone)})" if gone else "harbor.yml")
    return (
        changed(f"wrote {', '.join(written)}") if written else unchanged("harbor.yml is as the site wants it")
    )


def prepare(site: HarborSite, host: Host, *, force: bool = False) -> Outcome:
    """Run `./prepare` with the site's components; skipped when nothing it depends on has changed.

    Args:
        site: its Harbor's directory, version and components.
        host: the node.
        force: run it even so.

    Raises:
        Refused: harbor.yml would not survive it; it was not run.
        PrepareFailed: it failed; the configuration is the one from before.
    """
    version = parse_version(site.harbor.version)
    flags = component_flags(version, site.harbor.components)
    problems = lint(read_files(site, host).harbor_yml or "", version)
    if problems:
        raise Refused(f"{host.name}: harbor.yml would not survive Harbor's prepare.", problems)
    given = {
        "install_dir": site.harbor.install_dir.rstrip("/"),
        "flags": flags,
        "force": force,
        "timeout": PREPARE_TIMEOUT_S,
    }
    answer = host.python(_PROGRAM, given, timeout=PREPARE_TIMEOUT_S + 60)
    if answer["state"] == "failed":
        raise PrepareFailed(
            answer["why"],
            where=host.name,
            meaning=f"The configuration from before it was put back; {_what_runs(host)}.",
            remedy="Correct what it complains about, in the site file or in the override, and run the flow again.",
        )
    if answer["state"] == "unchanged":
        return unchanged("prepared already with this harbor.yml")
    if answer["state"] == "aligned":
        return changed("gave docker-compose.yml and its override what this node's compose asks for")
    return changed(f"ran ./prepare {' '.join(flags)}".rstrip())


def _what_runs(host: Host) -> str:
    """Tell how Harbor was left; it was called running when this very run had stopped it to copy its database."""
    argv = ["docker", "inspect", "--type", "container", "--format", "{{.State.Running}}", "harbor-core"]
    seen = host.run(argv, check=False).stdout.strip()
    if seen == "true":
        return "the running Harbor is as it was"
    if seen == "false":
        return (
            "Harbor stands still on this node. If its bundled database was taken over, the flow has stopped it: it "
            "stays down, and is read-only if somebody starts it, until the flow is run again"
        )
    return "no Harbor has run on this node yet"


def _ended(pem: str) -> str:
    return pem.rstrip() + "\n"
