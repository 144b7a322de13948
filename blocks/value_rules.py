"""What a single value of a site must be, whatever the others are."""

import ipaddress
import re
import zoneinfo
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from prefect.client.schemas.schedules import CronSchedule
from pydantic import SecretStr

from blocks.aliyun_rules import api_endpoint, balancer_instance, ecs_instance
from blocks.certificates import load_chain
from blocks.docker_rules import insecure_registries, mirrors
from blocks.flaw import Flaw
from blocks.keys import (
    age_identity_flaw,
    age_recipient_flaw,
    host_key_flaw,
    private_key_flaw,
    signing_secret_flaw,
)
from blocks.suggestions import did_you_mean

COMPONENTS = ("trivy", "notary", "chartmuseum")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def site_name(value: str) -> Flaw | None:
    """Block documents, directories and OSS keys are named by the site: only what all of them can carry."""
    if re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", value):
        return None
    return Flaw(f"{value!r} is not a usable name", "up to 40 lower-case letters, digits and -")


def address(value: str) -> Flaw | None:
    """An address that other machines can use: no loopback, no scheme, no port."""
    if _is_loopback(value):
        return Flaw(f"{value} means every machine itself", "an address that the other machines can reach")
    if _is_ipv6(value):
        return Flaw(f"{value} is an IPv6 address, which is not supported", "an IPv4 address or a name")
    if is_ip(value) or is_hostname(value):
        return None
    return Flaw(f"{value!r} is neither an IP address nor a host name", "no scheme, no port, no spaces")


def harbor_hostname(value: str) -> Flaw | None:
    """Harbor's own `prepare` refuses some of these, but after it has deleted the running configuration."""
    right = "the name (or address) of the load balancer"
    if _is_loopback(value):
        return Flaw(f"{value} sends every client to itself", right)
    if value == "reg.mydomain.com":
        return Flaw(f"{value} is the placeholder of Harbor's template", right)
    if _is_ipv6(value):
        return Flaw(f"{value} is an IPv6 address, which is not supported", right)
    if "://" in value or ":" in value:
        return Flaw(f"{value} has a scheme or a port", f"{right}, alone; the port is harbor.https_port")
    return None if is_ip(value) or is_hostname(value) else Flaw(f"{value!r} is not a host name", right)


def plain_password(value: SecretStr) -> Flaw | None:
    """Harbor writes these unquoted into env files, a DSN and YAML, where others are cut off or expanded."""
    secret = value.get_secret_value()
    if not re.fullmatch(r"[A-Za-z0-9_.~-]+", secret):
        return Flaw("has characters that Harbor's files cannot carry", "letters, digits and _ . ~ - only")
    if not secret[0].isalnum():
        return Flaw(f"starts with {secret[0]}", "a letter or digit first")
    return None


def admin_password(value: SecretStr) -> Flaw | None:
    """Harbor's own rule for passwords, and no character that compose expands or cuts off in an env file."""
    secret = value.get_secret_value()
    broken = []
    if not 8 <= len(secret) <= 128:
        broken.append("8 to 128 characters")
    broken += [
        name
        for name, pattern in (
            ("an upper-case letter", "[A-Z]"),
            ("a lower-case letter", "[a-z]"),
            ("a digit", "[0-9]"),
        )
        if not re.search(pattern, secret)
    ]
    if broken:
        return Flaw("is not accepted by Harbor", ", ".join(broken))
    if re.search(r"[\s\"'`$#\\]", secret) or not secret.isascii():
        return Flaw(
            "has characters that Harbor's files cannot carry", "no spaces, quotes, $, #, ` or \\; ASCII only"
        )
    return None


def role_name(value: str) -> Flaw | None:
    """A role of its own, written the same with and without quotes."""
    if value == "postgres" or value.startswith("pg_"):
        return Flaw(f"{value} is PostgreSQL's own", "a role that exists for this purpose only")
    if re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", value):
        return None
    return Flaw(f"{value!r} is not a plain name", "lower-case letters, digits and _, no digit first")


def private_key(value: SecretStr) -> Flaw | None:
    """A key that SSH can use without asking anybody."""
    flaw = private_key_flaw(value.get_secret_value())
    return Flaw(*flaw) if flaw else None


def cluster_name(value: str) -> Flaw | None:
    """Debian builds unit names `postgresql@15-main` from it, where a dash is a separator."""
    if re.fullmatch(r"[A-Za-z0-9_]+", value):
        return None
    return Flaw(f"{value!r} is not a cluster name", "letters, digits and _")


def directory(value: str) -> Flaw | None:
    """A path that shell, awk, YAML and compose all read the same way."""
    if not value.startswith("/"):
        return Flaw(f"{value} is a relative path", "an absolute path, the same on every node")
    if not re.fullmatch(r"[A-Za-z0-9_./+@-]+", value):
        return Flaw(f"{value!r} has spaces, quotes, # or the like", "letters, digits and _ . / + @ - only")
    if str(PurePosixPath(value)) != value or ".." in PurePosixPath(value).parts:
        return Flaw(f"{value} is not in its plain form", "no trailing /, no // and no ..")
    if value in ("/", "/data", "/var", "/var/lib", "/etc", "/usr", "/home", "/root", "/opt", "/tmp"):
        return Flaw(f"{value} is shared with other things", "a directory of its own")
    return None


def sha256(value: str) -> Flaw | None:
    """A checksum as sha256sum prints it."""
    if re.fullmatch(r"[0-9a-fA-F]{64}", value):
        return None
    return Flaw("is not a SHA-256 checksum", "64 hexadecimal digits, as `sha256sum FILE` prints them")


def harbor_version(value: str) -> Flaw | None:
    """A full version: what the installer's own tag says."""
    if re.fullmatch(r"v?\d+\.\d+\.\d+(-[A-Za-z0-9.]+)?", value):
        return None
    return Flaw(f"{value} is not a full version", "three numbers, such as v2.12.4")


def components(value: list[str]) -> Flaw | None:
    """Only what Harbor's install.sh knows."""
    for name in value:
        if name not in COMPONENTS:
            guess = did_you_mean(name, COMPONENTS)
            return Flaw(
                f"{name} is not a component", f"did you mean {guess}?" if guess else ", ".join(COMPONENTS)
            )
    return Flaw("names a component twice", "each once") if len(set(value)) < len(value) else None


def subnet(value: str) -> Flaw | None:
    """A private IPv4 network with room for Harbor's containers."""
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError:
        return Flaw(f"{value} is not an IPv4 network", "such as 10.213.48.0/24, the host bits zero")
    if network.prefixlen > 27 or not network.is_private:
        return Flaw(f"{value} is too small or not private", "a private network of /27 or larger")
    return None


def endpoint(value: str) -> Flaw | None:
    """oss2 guesses http:// when the scheme is missing, and would send the data in clear."""
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        return Flaw(f"{value} is not an address", "such as https://oss-cn-shanghai.aliyuncs.com")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return Flaw(f"{value} has no scheme", f"https://{value.rpartition('//')[2]}")
    if _is_ipv6(parts.hostname):
        return Flaw(f"{value} is an IPv6 address, which is not supported", "an IPv4 address or a name")
    if parts.path.strip("/") or parts.query:
        return Flaw(f"{value} has a path", "scheme and host only; the bucket has a key of its own")
    return None


def s3_endpoint(value: str | None) -> Flaw | None:
    """pgBackRest speaks TLS only, and puts the bucket in front of the name."""
    if value is None:
        return None
    flaw = endpoint(value)
    if flaw:
        return flaw
    parts = urlsplit(value)
    if parts.scheme != "https":
        return Flaw(f"{value} is not https", "https://: WAL is shipped over TLS only")
    if is_ip(parts.hostname or ""):
        return Flaw(f"{value} is an address", "a name: the bucket's name is put in front of it")
    return None


def pem_certificate(value: str | None) -> Flaw | None:
    """A CA as PEM."""
    if value is None:
        return None
    try:
        load_chain(value)
    except ValueError:
        return Flaw("is not a PEM certificate", "the text from `-----BEGIN CERTIFICATE-----` on")
    return None


def passphrase(value: SecretStr | None) -> Flaw | None:
    """It stands in pgBackRest's configuration, one line, where spaces at the ends would be cut off."""
    if value is None:
        return None
    secret = value.get_secret_value()
    if not re.fullmatch(r"[\x21-\x7e]+", secret):
        return Flaw("has spaces or other than ASCII characters", "letters, digits and punctuation")
    return Flaw("is short", "20 characters or more, random") if len(secret) < 20 else None


def region(value: str) -> Flaw | None:
    """The region is part of the signature: a wrong one is answered with SignatureDoesNotMatch."""
    if value.startswith("oss-"):
        return Flaw(f"{value} starts with oss-", f"{value.removeprefix('oss-').removesuffix('-internal')}")
    return (
        None
        if re.fullmatch(r"[a-z0-9-]+", value)
        else Flaw(f"{value!r} is not a region", "such as cn-shanghai")
    )


def bucket(value: str) -> Flaw | None:
    """Alibaba Cloud's own rule."""
    if re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", value):
        return None
    return Flaw(f"{value!r} is not a bucket name", "3 to 63 lower-case letters, digits and -")


def prefix(value: str) -> Flaw | None:
    """Object keys never start with a slash."""
    if re.fullmatch(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", value):
        return None
    return Flaw(
        f"{value!r} is not a prefix", "letters, digits and _ . -, parts separated by one /, none at the ends"
    )


def cron(value: str) -> Flaw | None:
    """What Prefect's scheduler accepts."""
    try:
        CronSchedule(cron=value)
    except ValueError:
        return Flaw(f"{value!r} is not a cron expression", "minute hour day month weekday, such as 0 2 * * *")
    return None


def timezone(value: str) -> Flaw | None:
    """A name of the time zone database."""
    names = zoneinfo.available_timezones()
    if value in names:
        return None
    guess = did_you_mean(value, names)
    return Flaw(
        f"{value} is not a time zone", f"did you mean {guess}?" if guess else "a name such as Asia/Shanghai"
    )


def age_recipients(value: list[str]) -> Flaw | None:
    """A backup that is encrypted for a mistyped key is no backup."""
    for position, recipient in enumerate(value, start=1):
        flaw = age_recipient_flaw(recipient)
        if flaw:
            return Flaw(
                f"recipient {position} {flaw}", "age1… as age-keygen prints it, or an ssh-ed25519 public key"
            )
    return None


def nas_source(value: str | None) -> Flaw | None:
    """A source goes into fstab, where a space ends the field."""
    if value is None or not re.search(r"\s", value):
        return None
    return Flaw(f"{value!r} has spaces", "such as nas.example.com:/share")


def command(value: list[str] | None) -> Flaw | None:
    """A list of program and arguments; it is run without a shell."""
    if value is None or (value and value[0].strip()):
        return None
    return Flaw("names no program", "[program, argument, …]")


def is_ip(value: str) -> bool:
    """Whether the text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def is_hostname(value: str) -> bool:
    """Whether the text can be a host name; four numbers are a mistyped address, not a name."""
    labels = value.removesuffix(".").split(".")
    return len(value) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()


def _is_ipv6(value: str) -> bool:
    # With a zone or in brackets as well; neither pg_hba.conf nor harbor.yml is written for one.
    return is_ip(value.strip("[]")) and ":" in value


def _is_loopback(value: str) -> bool:
    try:
        ip = ipaddress.ip_address(value)
    except ValueError:
        return value.lower() in ("localhost", "localhost.localdomain", "ip6-localhost")
    return ip.is_loopback or ip.is_unspecified


def _from_flaw(flaw_of: Callable[[str], str | None], right: str) -> Callable[[Any], Flaw | None]:
    def check(value: SecretStr | str | None) -> Flaw | None:
        if value is None:
            return None
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        flaw = flaw_of(text)
        return Flaw(flaw, right) if flaw else None

    return check


RULES: tuple[tuple[str, Callable[[Any], Flaw | None]], ...] = (
    ("name", site_name),
    ("nodes.*.name", site_name),
    ("nodes.*.address", address),
    ("nodes.*.private_key", private_key),
    (
        "nodes.*.host_key",
        _from_flaw(host_key_flaw, "the line from /etc/ssh/ssh_host_ed25519_key.pub of the node"),
    ),
    ("nodes.*.instance_id", ecs_instance),
    ("postgres.cluster", cluster_name),
    ("postgres.data_dir", directory),
    ("postgres.archive_dir", directory),
    ("postgres.database", role_name),
    ("postgres.*.user", role_name),
    ("postgres.*.password", plain_password),
    ("harbor.sha256", sha256),
    ("harbor.version", harbor_version),
    ("harbor.hostname", harbor_hostname),
    ("harbor.admin_password", admin_password),
    ("harbor.components", components),
    ("harbor.install_dir", directory),
    ("harbor.data_volume", directory),
    ("harbor.network", subnet),
    ("redis.host", address),
    ("redis.password", plain_password),
    ("nas.path", directory),
    ("nas.source", nas_source),
    ("balancer.address", address),
    ("balancer.*_command", command),
    ("balancer.instance_id", balancer_instance),
    ("aliyun.region", region),
    ("aliyun.*_endpoint", api_endpoint),
    ("oss.endpoint", endpoint),
    ("oss.s3_endpoint", s3_endpoint),
    ("oss.s3_ca", pem_certificate),
    ("oss.region", region),
    ("oss.bucket", bucket),
    ("oss.prefix", prefix),
    ("docker.registry_mirrors", mirrors),
    ("docker.insecure_registries", insecure_registries),
    ("failover.fence_command", command),
    ("backup.cron", cron),
    ("backup.drill_cron", cron),
    ("backup.base_cron", cron),
    ("backup.wal_passphrase", passphrase),
    ("backup.timezone", timezone),
    ("backup.age_recipients", age_recipients),
    ("backup.age_identity", _from_flaw(age_identity_flaw, "the text of the file that age-keygen wrote")),
    ("backup.signing_secret", _from_flaw(signing_secret_flaw, "what `openssl rand -hex 32` prints")),
)
"""Pattern of a path, and the rule for the values there. `*` stands for any text."""
