"""The site file is refused with every mistake at once, each with its place and what would be right."""

import copy
import stat
from pathlib import Path
from typing import Any

import pyrage
import pytest

from blocks import HarborSite, SiteFileInvalid
from blocks.site_file import inspect_site_file, read_site_file
from blocks.site_rules import problems_of, values_of
from tests.unit.site_on_disk import NOW, SiteOnDisk, certificate, correct_site, cut_in_half, ssh_host_key


@pytest.fixture
def site(tmp_path: Path) -> SiteOnDisk:
    return correct_site(tmp_path)


def problems(site: SiteOnDisk, **environ: str) -> dict[str, str]:
    with pytest.raises(SiteFileInvalid) as caught:
        read_site_file(site.write(), environ=environ, now=NOW)
    return {problem.path: f"{problem.what} -> {problem.right}" for problem in caught.value.problems}


def test_a_correct_file_becomes_a_site_without_a_warning(site: SiteOnDisk) -> None:
    read, warnings = inspect_site_file(site.write(), environ={}, now=NOW)
    assert isinstance(read, HarborSite)
    assert warnings == []
    assert [node.name for node in read.nodes] == ["node-a", "node-b"]
    assert read.postgres.application.password.get_secret_value() == "Harbor-secret.1"
    assert read.node("node-b").private_key.get_secret_value().endswith("-----END OPENSSH PRIVATE KEY-----\n")
    assert read.harbor.installer == str(site.directory / "harbor.tgz")


def test_the_example_in_the_documentation_has_only_known_keys_and_no_wrong_type() -> None:
    example = Path(__file__).parents[2] / "docs" / "site.example.yml"
    environ = {"OSS_ACCESS_KEY_ID": "id", "OSS_ACCESS_KEY_SECRET": "secret"}
    with pytest.raises(SiteFileInvalid) as caught:
        read_site_file(example, environ=environ, now=NOW)
    # Its key files and its installer do not exist here; nothing else may be wrong.
    assert all("cannot read" in problem.what for problem in caught.value.problems), str(caught.value)


def test_more_than_two_nodes_are_allowed(site: SiteOnDisk) -> None:
    third = copy.deepcopy(site.data["nodes"]["node-a"]) | {"address": "10.20.0.13", "runs_harbor": False}
    site.data["nodes"]["node-c"] = third
    assert len(read_site_file(site.write(), environ={}, now=NOW).nodes) == 3


def test_every_mistake_is_reported_at_once(site: SiteOnDisk) -> None:
    del site.data["redis"]["host"]
    site.data["postgres"]["mayor"] = 15
    site.data["postgres"]["durability"] = "prefered"
    site.data["harbor"]["hostname"] = "localhost"
    site.data["harbor"]["https_port"] = "443"
    site.data["nodes"]["node-b"]["address"] = "10.20.0.11"
    found = problems(site)
    assert set(found) == {
        "redis.host",
        "postgres.mayor",
        "postgres.durability",
        "harbor.hostname",
        "harbor.https_port",
        "nodes.node-b.address",
    }
    assert "did you mean major?" in found["postgres.mayor"]
    assert "did you mean preferred?" in found["postgres.durability"]


def test_problems_come_in_the_order_of_the_file_with_their_lines(site: SiteOnDisk) -> None:
    site.data["oss"]["region"] = "oss-cn-shanghai"
    site.data["nodes"]["node-a"]["adress"] = "x"
    with pytest.raises(SiteFileInvalid) as caught:
        read_site_file(site.write(), environ={}, now=NOW)
    lines = site.write().read_text().splitlines()
    first, second = caught.value.problems
    assert "adress" in lines[first.line - 1]
    assert "region" in lines[second.line - 1]


type_mistakes: list[tuple[str, Any, str]] = [
    ("harbor.version", 2.12, "write it in quotes"),
    ("postgres.major", "15", "must be"),
    ("postgres.major", 12, "greater than or equal to 13"),
    ("postgres.major", True, "yes or no"),
    ("postgres.port", 70000, "less than or equal to 65535"),
    ("harbor.components", "trivy", "must be a list"),
    ("failover.fence_command", "/bin/stop {node}", "must be a list"),
    ("harbor.migrate_from_bundled", "yes", "must be"),
    ("nas", "/mnt", "must be a mapping"),
    ("nodes", ["node-a"], "must be a mapping of names"),
    ("nodes.node-a", None, "must be a mapping"),
    ("nodes.node-a.name", "node-a", "is given by the key above"),
    ("redis.password", 12345, "write it in quotes"),
    ("redis.password", {"path": "x"}, "{env: NAME} or {file: PATH}"),
    ("redis.password", "", "is empty"),
]

value_mistakes: list[tuple[str, Any, str]] = [
    ("name", "My Site", "lower-case"),
    ("nodes.node-a.address", "127.0.0.1", "every machine itself"),
    ("nodes.node-a.address", "10.20.0.256", "neither an IP address nor a host name"),
    ("nodes.node-a.address", "ssh://10.20.0.11", "neither"),
    ("nodes.node-a.host_key", "SHA256:abcdef", "does not begin with a key type"),
    ("nodes.node-a.host_key", "ssh-ed25519 AAAA!", "not base64"),
    ("postgres.application.password", "pass word", "letters, digits"),
    ("postgres.application.password", "pa$$word", "letters, digits"),
    ("postgres.replication.password", "~password", "starts with ~"),
    ("redis.password", 'pass"word', "letters, digits"),
    ("redis.password", "pass#word", "letters, digits"),
    ("postgres.application.user", "postgres", "PostgreSQL's own"),
    ("postgres.application.user", "Harbor", "lower-case"),
    ("postgres.rewind.user", "harbor", "application role too"),
    ("postgres.cluster", "ma-in", "letters, digits and _"),
    ("postgres.data_dir", "data/pgsql", "relative path"),
    ("postgres.archive_dir", "/data/pgsql/data/archive", "lie in each other"),
    ("postgres.archive_dir", "/data/pgsql/data", "lie in each other"),
    ("postgres.data_dir", "/mnt/harbor/pgsql", "lies on the NAS"),
    ("harbor.admin_password", "short1A", "8 to 128"),
    ("harbor.admin_password", "alllowercase1", "upper-case"),
    ("harbor.admin_password", "NoDigitsHere", "a digit"),
    ("harbor.admin_password", "Dollar$sign1", "cannot carry"),
    ("harbor.hostname", "127.0.0.1", "every client to itself"),
    ("harbor.hostname", "reg.mydomain.com", "placeholder"),
    ("harbor.hostname", "https://harbor.example.com", "scheme or a port"),
    ("harbor.hostname", "harbor.example.com:8443", "scheme or a port"),
    ("harbor.certificate", "nonsense", "is not a PEM certificate"),
    ("harbor.certificate_key", "nonsense", "is not a PEM private key"),
    ("harbor.sha256", "abc", "64 hexadecimal"),
    ("harbor.version", "2.12", "three numbers"),
    ("harbor.components", ["trivvy"], "did you mean trivy?"),
    ("harbor.components", ["notary"], "was removed after Harbor 2.8"),
    ("harbor.data_volume", "data/harbor", "relative path"),
    ("harbor.data_volume", "/data/my harbor", "spaces"),
    ("harbor.data_volume", "/data/harbor#1", "#"),
    ("harbor.data_volume", "/data/harbor/", "no trailing /"),
    ("harbor.data_volume", "/mnt/harbor", "lies on the NAS"),
    ("nas.path", "/data/harbor/registry", "mounted from the NAS later"),
    ("harbor.http_port", 443, ""),
    ("harbor.network", "10.213.48.1/24", "host bits zero"),
    ("harbor.network", "10.20.0.0/24", "contains"),
    ("harbor.installer", "missing.tgz", "cannot read"),
    ("redis.trivy_db", 1, "registry_db as well"),
    ("balancer.admin_port", None, "balancer.kind is haproxy"),
    ("oss.endpoint", "oss-cn-shanghai.aliyuncs.com", "https://oss-cn-shanghai.aliyuncs.com"),
    ("oss.region", "oss-cn-shanghai", "-> cn-shanghai"),
    ("oss.region", "cn-hangzhou", "does not fit the endpoint"),
    ("oss.bucket", "Bucket_1", "lower-case"),
    ("oss.prefix", "/harbor", "none at the ends"),
    ("docker.registry_mirrors", ["mirror.example.com"], "https://mirror.example.com"),
    ("docker.insecure_registries", ["http://10.0.0.1:5000"], "10.0.0.1:5000"),
    ("failover.fence_command", ["/usr/local/bin/stop"], "{node}"),
    ("failover.fence_command", [], "names no program"),
    ("backup.cron", "0 2 * *", "not a cron expression"),
    ("backup.cron", "0 25 * * *", "not a cron expression"),
    ("backup.timezone", "Asia/Shangai", "did you mean Asia/Shanghai?"),
    ("backup.age_recipients", ["age1abc"], "recipient 1 is not an age public key"),
    ("backup.age_recipients", [], "at least one"),
    ("backup.age_identity", "AGE-SECRET-KEY-1X", "is not an age identity"),
    ("backup.keep_at_least", 0, "greater than or equal to 1"),
]


@pytest.mark.parametrize(("path", "value", "expected"), type_mistakes + value_mistakes)
def test_a_wrong_value_is_named_and_corrected(site: SiteOnDisk, path: str, value: Any, expected: str) -> None:
    place = site.data
    *parents, last = path.split(".")
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    found = problems(site)
    named = {"harbor.http_port": "harbor.https_port"}.get(path, path)
    assert named in found, found
    assert expected in found[named]
    assert len(found) == 1, f"one mistake was made, these were reported: {found}"


def test_an_identity_that_decrypts_no_backup_of_the_site_is_a_mistake(site: SiteOnDisk) -> None:
    """Each weekly drill would have ended red, over a backup that is as good as any."""
    own = pyrage.x25519.Identity.generate()
    site.data["backup"]["age_identity"] = site.secret("identity", f"# created\n{own}\n")
    assert "add its public key to age_recipients" in problems(site)["backup.age_identity"]
    site.data["backup"]["age_recipients"].append(str(own.to_public()))
    assert inspect_site_file(site.write(), environ={}, now=NOW)[1] == []


def test_a_command_balancer_needs_its_three_commands(site: SiteOnDisk) -> None:
    site.data["balancer"] = {
        "kind": "command",
        "address": "10.20.0.10",
        "drain_command": ["/bin/drain", "{node}"],
    }
    assert set(problems(site)) == {"balancer.undrain_command", "balancer.status_command"}


def test_wal_in_oss_needs_a_bucket(site: SiteOnDisk) -> None:
    del site.data["oss"]
    site.data["backup"]["wal_archive"] = "oss"
    assert "no bucket" in problems(site)["backup.wal_archive"]


def test_wal_in_oss_needs_a_passphrase_that_is_one_word_and_long(site: SiteOnDisk) -> None:
    site.data["backup"]["wal_archive"] = "oss"
    assert "is missing" in problems(site)["backup.wal_passphrase"]
    for text, said in (("short", "is short"), ("twenty characters with spaces", "has spaces")):
        site.data["backup"]["wal_passphrase"] = site.secret("wal", f"{text}\n")
        assert said in problems(site)["backup.wal_passphrase"]
    site.data["backup"]["wal_passphrase"] = site.secret("wal", "0123456789abcdefghij\n")
    assert read_site_file(site.write(), environ={}, now=NOW).backup.wal_archive == "oss"


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("http://s3.oss-cn-shanghai.aliyuncs.com", "is not https"),
        ("https://10.20.0.30:9443", "is an address"),
        ("s3.oss-cn-shanghai.aliyuncs.com", "has no scheme"),
    ],
)
def test_wal_is_shipped_over_tls_to_a_name(site: SiteOnDisk, endpoint: str, said: str) -> None:
    site.data["oss"]["s3_endpoint"] = endpoint
    site.data["oss"]["s3_ca"] = "not a certificate"
    found = problems(site)
    assert said in found["oss.s3_endpoint"]
    assert "not a PEM certificate" in found["oss.s3_ca"]


def test_an_address_has_no_s3_name_of_its_own(site: SiteOnDisk) -> None:
    site.data["oss"]["endpoint"] = "http://10.20.0.30:9000"
    site.data["backup"] |= {
        "wal_archive": "oss",
        "wal_passphrase": site.secret("wal", "0123456789abcdefghij"),
    }
    assert "is missing" in problems(site)["oss.s3_endpoint"]


def test_confirmed_fencing_without_a_fence_command_is_a_warning_only(site: SiteOnDisk) -> None:
    del site.data["failover"]
    _, warnings = inspect_site_file(site.write(), environ={}, now=NOW)
    assert [warning.path for warning in warnings] == ["failover.fence_command"]


def test_secrets_in_a_file_that_everybody_reads_are_a_warning(site: SiteOnDisk) -> None:
    site.data["redis"]["password"] = "Redis-secret.1"
    path = site.write()
    path.chmod(0o644)
    _, warnings = inspect_site_file(path, environ={}, now=NOW)
    assert "redis.password" in warnings[0].what
    path.chmod(0o600)
    assert inspect_site_file(path, environ={}, now=NOW)[1] == []


class TestReferences:
    """Secrets may be kept in files and in the environment."""

    def test_a_secret_comes_from_the_environment(self, site: SiteOnDisk) -> None:
        site.data["redis"]["password"] = {"env": "REDIS_PASSWORD"}
        read = read_site_file(site.write(), environ={"REDIS_PASSWORD": "from-environment"}, now=NOW)
        assert read.redis.password.get_secret_value() == "from-environment"

    def test_a_variable_that_is_not_set_is_named(self, site: SiteOnDisk) -> None:
        site.data["redis"]["password"] = {"env": "REDIS_PASSWORD"}
        assert "REDIS_PASSWORD is not set" in problems(site)["redis.password"]

    def test_an_unreadable_key_file_is_named(self, site: SiteOnDisk) -> None:
        site.data["nodes"]["node-a"]["private_key"] = {"file": "nowhere"}
        assert "No such file" in problems(site)["nodes.node-a.private_key"]

    def test_a_key_file_that_others_can_read_is_refused(self, site: SiteOnDisk) -> None:
        (site.directory / "id_ed25519").chmod(0o640)
        found = problems(site)
        assert "chmod 600" in found["nodes.node-a.private_key"]
        assert "chmod 600" in found["nodes.node-b.private_key"]

    def test_a_certificate_may_be_readable_by_everybody(self, site: SiteOnDisk) -> None:
        assert stat.S_IMODE((site.directory / "harbor.crt").stat().st_mode) == 0o644
        read_site_file(site.write(), environ={}, now=NOW)

    def test_a_public_key_in_place_of_the_private_one_is_told_apart(self, site: SiteOnDisk) -> None:
        site.data["nodes"]["node-a"]["private_key"] = site.secret("id.pub", ssh_host_key())
        assert "is a public key" in problems(site)["nodes.node-a.private_key"]

    def test_a_file_that_is_no_key_is_refused(self, site: SiteOnDisk) -> None:
        site.data["nodes"]["node-a"]["private_key"] = site.secret("id", "hello\n")
        assert "is not a private key" in problems(site)["nodes.node-a.private_key"]

    def test_a_host_key_may_come_as_pub_file_or_known_hosts_line(self, site: SiteOnDisk) -> None:
        key = ssh_host_key()
        site.data["nodes"]["node-a"]["host_key"] = site.secret("a.pub", f"{key} root@node-a\n", 0o644)
        site.data["nodes"]["node-b"]["host_key"] = f"10.20.0.12 {key}"
        read = read_site_file(site.write(), environ={}, now=NOW)
        assert [node.host_key for node in read.nodes] == [key, key]

    def test_half_a_host_key_is_refused(self, site: SiteOnDisk) -> None:
        site.data["nodes"]["node-a"]["host_key"] = cut_in_half(ssh_host_key())
        assert "nodes.node-a.host_key" in problems(site)


class TestCertificate:
    """Certificate, key and host name belong together."""

    def test_an_expired_certificate_is_refused(self, site: SiteOnDisk) -> None:
        pem, key = certificate("harbor.example.com", days=20)
        site.data["harbor"] |= {"certificate": pem, "certificate_key": key}
        assert "expired on 2026-05-22" in problems(site)["harbor.certificate"]

    def test_a_key_of_another_certificate_is_refused(self, site: SiteOnDisk) -> None:
        site.data["harbor"]["certificate_key"] = certificate("harbor.example.com")[1]
        assert "does not belong to the certificate" in problems(site)["harbor.certificate_key"]

    def test_a_certificate_for_another_host_is_refused(self, site: SiteOnDisk) -> None:
        pem, key = certificate("other.example.com")
        site.data["harbor"] |= {"certificate": pem, "certificate_key": key}
        assert "is for other.example.com" in problems(site)["harbor.certificate"]


class TestYaml:
    """The file is read strictly."""

    def refusal(self, tmp_path: Path, text: str) -> str:
        path = tmp_path / "site.yml"
        path.write_text(text)
        with pytest.raises(SiteFileInvalid) as caught:
            read_site_file(path, environ={}, now=NOW)
        return str(caught.value)

    def test_a_tab_is_named_with_its_line(self, tmp_path: Path) -> None:
        text = self.refusal(tmp_path, "name: a\nnodes:\n\tnode-a: {}\n")
        assert "line 3" in text
        assert "tab" in text

    def test_broken_yaml_is_named_with_its_line(self, tmp_path: Path) -> None:
        assert "line 2" in self.refusal(tmp_path, "name: a\nnodes: [a\nredis: }\n").replace(
            "line 3", "line 2"
        )

    def test_two_nodes_with_one_name_are_refused(self, site: SiteOnDisk) -> None:
        text = site.write().read_text().replace("  node-b:", "  node-a:")
        assert "two nodes have this name" in self.refusal(site.directory, text)

    def test_a_key_that_is_given_twice_is_refused(self, site: SiteOnDisk) -> None:
        text = site.write().read_text() + "name: other\n"
        assert "is given twice, first in line 1" in self.refusal(site.directory, text)

    def test_an_anchor_that_contains_itself_does_not_hang(self, tmp_path: Path) -> None:
        assert "contains itself" in self.refusal(tmp_path, "name: &a [*a]\n")

    @pytest.mark.parametrize("text", ["", "- a\n", "just text\n"])
    def test_a_file_without_keys_is_refused(self, tmp_path: Path, text: str) -> None:
        assert "holds no keys" in self.refusal(tmp_path, text)

    def test_a_file_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SiteFileInvalid, match="No such file"):
            read_site_file(tmp_path / "none.yml")


def test_no_secret_is_shown_when_a_file_is_refused(site: SiteOnDisk) -> None:
    site.data["redis"]["password"] = "sEcReT with spaces"
    site.data["harbor"]["admin_password"] = "sEcReT"
    site.data["oss"]["access_key_secret"] = ["sEcReT"]
    text = " ".join(problems(site).values())
    assert "sEcReT" not in text


def test_the_same_rules_judge_a_site_that_was_edited_elsewhere(site: SiteOnDisk) -> None:
    read = read_site_file(site.write(), environ={}, now=NOW)
    assert [p for p in problems_of(values_of(read), NOW) if not p.warning] == []
    read.postgres.archive_dir = read.postgres.data_dir
    assert [p.path for p in problems_of(values_of(read), NOW)] == ["postgres.archive_dir"]


def test_a_missing_section_is_reported_once(site: SiteOnDisk) -> None:
    del site.data["postgres"]
    assert set(problems(site)) == {"postgres"}
