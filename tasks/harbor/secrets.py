"""The secrets that all Harbor nodes must have in common, and how they come to be equal.

With different secretkeys Harbor decrypts the passwords of replication endpoints and LDAP to garbage without
an error; with different token keys a login through one node is a 401 on the other.
"""

import base64
import datetime
import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from blocks import HarborSite
from tasks.errors import HarborHaError, Refused
from tasks.harbor.on_node import secret_files as program
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged

_PROGRAM = node_program(program)

SECRETKEY, TOKEN_KEY, TOKEN_CERT = "secretkey", "private_key.pem", "root.crt"
# As Harbor's own prepare makes it.
TOKEN_KEY_BITS = 4096
_TRADITIONAL = "-----BEGIN RSA PRIVATE KEY-----"
_ALPHABET = string.ascii_letters + string.digits


class SecretsDiffer(Refused):
    """Two nodes have different secrets of the same name; choosing one would lose what the other encrypted."""


@dataclass(frozen=True)
class Plan:
    """What to do about one secret.

    Attributes:
        source: the node that has it; None: generate a new one.
        targets: the nodes that need it; empty when all have it.
    """

    source: str | None
    targets: tuple[str, ...]


def decide(name: str, fingerprints: Mapping[str, str | None]) -> Plan:
    """Decide how one secret becomes equal on all nodes.

    Args:
        name: the secret, for the message.
        fingerprints: of each node's file; None where there is none.

    Raises:
        SecretsDiffer: nodes have different ones. None of them is ever overwritten.
    """
    owners = [node for node, found in fingerprints.items() if found]
    if len({fingerprints[node] for node in owners}) > 1:
        raise SecretsDiffer(
            f"The nodes have different {name} files.",
            [
                f"{', '.join(owners)}: find out which one encrypted the data in the database (the node that"
                f" served Harbor until now), and move the other nodes' {name} away."
            ],
        )
    targets = tuple(node for node, found in fingerprints.items() if not found)
    return Plan(owners[0] if owners else None, targets)


def paths(site: HarborSite) -> dict[str, str]:
    """Name the secret files on a node."""
    base = f"{site.harbor.data_volume.rstrip('/')}/secret"
    return {
        SECRETKEY: f"{base}/keys/secretkey",
        TOKEN_KEY: f"{base}/core/private_key.pem",
        TOKEN_CERT: f"{base}/registry/root.crt",
    }


def share(site: HarborSite, *hosts: Host) -> Outcome:
    """Make secretkey and the token key pair equal on all nodes; must run before the first `prepare`.

    prepare generates what is missing on its own, on each node another; and if one file of the pair is
    missing, it overwrites the other.

    Raises:
        SecretsDiffer: nodes have different secrets already.
        Refused: there is a token certificate whose key is nowhere, or a token key that core does not read.
    """
    where = paths(site)
    with ThreadPoolExecutor(len(hosts)) as pool:
        seen_by = pool.map(lambda host: _ask(host, {"look": where}), hosts)
        looks = dict(zip((host.name for host in hosts), seen_by, strict=True))
    plans: dict[str, Plan] = {}
    refusals: list[str] = []
    for name in where:
        try:
            plans[name] = decide(name, {node: seen[name] for node, seen in looks.items()})
        except SecretsDiffer as differ:
            refusals += differ.reasons
    if refusals:
        raise SecretsDiffer("The nodes have different secrets.", refusals)
    _refuse_lonely_certificate(plans)
    _refuse_forms(where[TOKEN_KEY], [host for host in hosts if looks[host.name][TOKEN_KEY] is not None])
    if not any(plan.targets for plan in plans.values()):
        return unchanged("secretkey and token keys are equal on all nodes")
    by_name = {host.name: host for host in hosts}
    contents: dict[str, bytes] = {}
    makers: dict[str, Callable[[], bytes]] = {
        SECRETKEY: lambda: random_text(16).encode(),
        TOKEN_KEY: new_token_key,
        TOKEN_CERT: lambda: token_certificate(contents[TOKEN_KEY]),
    }
    for name, plan in plans.items():
        fetch = makers[name] if plan.source is None else partial(_fetch, by_name[plan.source], where[name])
        contents[name] = fetch()
    for host in hosts:
        _place(
            host, {where[name]: contents[name] for name, plan in plans.items() if host.name in plan.targets}
        )
    return changed("; ".join(_describe(name, plan) for name, plan in plans.items() if plan.targets))


def copied_on_node(host: Host, source: Mapping[str, str], target: Mapping[str, str]) -> Outcome:
    """Copy secrets from one place on a node to another; the ones that are missing at the source are left out.

    Args:
        host: the node.
        source, target: the path of each secret by its name.

    Raises:
        SecretsDiffer: the target has another one; it is never overwritten.
    """
    given, there = (_ask(host, {"look": dict(paths)}) for paths in (source, target))
    other = [name for name, seen in there.items() if seen is not None and seen != given[name]]
    if other:
        raise SecretsDiffer(
            f"{host.name} has other secrets where the site's are to be.",
            [f"{target[name]} is not {source[name]} -> move it away if it may go" for name in other],
        )
    wanted = [name for name, seen in given.items() if seen is not None and there[name] is None]
    _place(host, {target[name]: _fetch(host, source[name]) for name in wanted})
    return changed(f"copied {', '.join(wanted)}") if wanted else unchanged("they are there")


def random_text(length: int) -> str:
    """Draw letters and digits; a secret that no file format needs to quote."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def new_token_key() -> bytes:
    """Make the key that core signs bearer tokens with: PEM in the PKCS#1 form of Harbor's own prepare."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=TOKEN_KEY_BITS)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def token_certificate(private_key: bytes) -> bytes:
    """Issue the self-signed certificate that the registry checks tokens with, for ten years."""
    key = serialization.load_pem_private_key(private_key, password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise HarborHaError("The token key is not an RSA key.", remedy="Move private_key.pem away.")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "harbor-token-issuer")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _refuse_lonely_certificate(plans: Mapping[str, Plan]) -> None:
    if plans[TOKEN_CERT].source is not None and plans[TOKEN_KEY].source is None:
        raise Refused(
            "The token certificate has no key.",
            [
                f"{plans[TOKEN_CERT].source} has {TOKEN_CERT} but no node has {TOKEN_KEY}: restore the key"
                f" from a backup, or move {TOKEN_CERT} away; all clients then log in again."
            ],
        )


def traditional(private_key: bytes) -> bytes:
    """Give a token key in the PKCS#1 form of Harbor's own; core reads no other, in any version.

    Raises:
        HarborHaError: it is no RSA private key.
    """
    if private_key.lstrip().startswith(_TRADITIONAL.encode()):
        return private_key
    try:
        key = serialization.load_pem_private_key(private_key, password=None)
    except Exception:  # cryptography raises ValueError, TypeError, UnsupportedAlgorithm for what is none
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise HarborHaError(f"{TOKEN_KEY} is no RSA private key without a passphrase.")
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _refuse_forms(path: str, hosts: Sequence[Host]) -> None:
    reasons = []
    for host in hosts:
        form: str = host.python(_PROGRAM, {"form": path})
        flaw = token_key_flaw(form, path)
        reasons += [f"{host.name}: {flaw}"] if flaw else []
    if reasons:
        raise Refused("Harbor's core could sign no token.", reasons)


def token_key_flaw(form: str, path: str) -> str:
    """Say what is wrong with the first line of a token key's file; "" when core reads it.

    Harbor is healthy with a key that core does not read, and answers every login and pull with 500.
    """
    if form == _TRADITIONAL:
        return ""
    if form != "-----BEGIN PRIVATE KEY-----":
        return f"{path} is no RSA private key that core reads -> put it back from a backup"
    # In place: owner and mode stay.
    command = f"key=$(openssl pkey -in {path} -traditional) && printf '%s\\n' \"$key\" > {path}"
    return f"{path} is in PKCS#8 form, which core does not read -> {command}"


def _ask(host: Host, request: Mapping[str, object]) -> dict[str, str | None]:
    answer: dict[str, str | None] = host.python(_PROGRAM, request)
    return answer


def _fetch(host: Host, path: str) -> bytes:
    encoded: str = host.python(_PROGRAM, {"give": path})
    return base64.b64decode(encoded)


def _place(host: Host, files: Mapping[str, bytes]) -> None:
    if not files:
        return
    request = {"place": [(path, base64.b64encode(data).decode()) for path, data in files.items()]}
    placed: Sequence[str] = host.python(_PROGRAM, request)
    if set(placed) != set(files):
        raise SecretsDiffer(
            f"{host.name} got a secret of its own while ours were being shared.",
            ["Somebody ran prepare or another bootstrap at the same time; run this again."],
        )


def _describe(name: str, plan: Plan) -> str:
    how = "generated" if plan.source is None else f"copied from {plan.source}"
    return f"{name} {how} for {', '.join(plan.targets)}"
