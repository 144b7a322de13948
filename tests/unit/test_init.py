"""`harbor-ha init` against servers that are real: SSH, Redis, OSS. What it writes passes `apply --check`."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks import SshHost
from blocks.keys import fingerprint
from blocks.site_file import inspect_site_file
from deployments import arguments, cli, exits
from deployments.init import command, trials
from deployments.init.command import run_init
from deployments.init.draft import Draft
from deployments.init.given import problems_of, read_given
from lab.oss.server import OssServer
from tests.unit import local_oss
from tests.unit.local_redis import running_redis
from tests.unit.local_sshd import running_sshd
from tests.unit.site_on_disk import certificate, ssh_host_key, ssh_private_key

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(os.geteuid() != 0, reason="logs in to this machine as root, as to a node"),
]

# 127.0.0.1 for the resolver, and not refused as an address that is each machine's own; twice, for two nodes.
A, B = "0x7f000001", "0x07f000001"
# Something is mounted there on each Linux.
NAS = "/proc"
SECRET = "Redis-secret.1"


@pytest.fixture
def installer(tmp_path: Path) -> Path:
    file = tmp_path / "harbor-offline-installer-v2.12.4.tgz"
    file.write_bytes(b"an installer")
    return file


@pytest.fixture
def authorized(tmp_path: Path) -> Path:
    file = tmp_path / "authorized_keys"
    file.touch()
    return file


@pytest.fixture
def node(authorized: Path) -> Iterator[SshHost]:
    with running_sshd({}, authorized=authorized) as running:
        yield running


@pytest.fixture
def oss(tmp_path: Path) -> Iterator[OssServer]:
    (tmp_path / "bucket").mkdir()
    with local_oss.running_oss(tmp_path / "bucket") as server:
        yield server


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[int]:
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    with running_redis(tmp_path, SECRET) as port:
        yield port


class Operator:
    """Types answers by what the prompt begins with; a list of them one after the other."""

    def __init__(self, script: dict[str, Any]) -> None:
        self.script = {
            start: list(said) if isinstance(said, list) else said for start, said in script.items()
        }
        self.asked: list[str] = []
        self.read: list[str] = []

    def __call__(self, prompt: str) -> str:
        self.asked.append(prompt)
        for start, said in self.script.items():
            if prompt.startswith(start):
                line = said.pop(0) if isinstance(said, list) else said
                if line is EOFError:
                    raise EOFError
                if callable(line):
                    line = line()
                return str(line)
        raise AssertionError(f"nobody has an answer to {prompt!r}; told was: {self.read[-3:]}")

    @property
    def screen(self) -> str:
        return "\n".join(self.read)

    def init(self, *words: str) -> int:
        given = arguments.make_parser().parse_args(["init", *words])
        return run_init(given, ask=self, ask_secret=self, tell=self.read.append)


def authorize(directory: Path, authorized: Path) -> Callable[[], str]:
    def put() -> str:
        authorized.write_text((directory / "keys" / "id_ed25519.pub").read_text())
        return ""

    return put


@pytest.fixture
def script(
    tmp_path: Path,
    node: SshHost,
    authorized: Path,
    installer: Path,
    oss: OssServer,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """What an operator who makes no mistake says; Redis is another test's."""
    monkeypatch.setitem(trials.TRIALS, "redis", lambda draft: [])  # type: ignore[arg-type]
    return {
        "Short name of the site": "main",
        "Address of node-a": f"{A}:{node.port}",
        "Address of node-b": f"{B}:{node.port}",
        "Enter when it is there": authorize(tmp_path / "site", authorized),
        "node-a (": "yes",
        "node-b (": "yes",
        "Harbor's offline installer": str(installer),
        "Its SHA-256": "",
        "Its version": "",
        "Host name": A,
        "Address of the load": "",
        "Kind of load": "none",
        "Address of Redis": A,
        "Port of Redis": "",
        "Password of Redis": SECRET,
        "Where the NAS": NAS,
        "What to mount": "",
        "Name of the OSS": local_oss.BUCKET,
        "Region": local_oss.REGION,
        "Endpoint": oss.endpoint,
        "AccessKey ID": local_oss.ACCESS_KEY_ID,
        "AccessKey secret": local_oss.ACCESS_KEY_SECRET,
        "Time zone": "Europe/Berlin",
        "Command that switches": "/usr/local/bin/stop-machine {node}",
        "Certificate": "",
        "age public key": "",
    }


def everything(directory: Path) -> dict[str, tuple[int, bytes, int]]:
    return {
        str(path.relative_to(directory)): (
            path.stat().st_mode & 0o777,
            path.read_bytes(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


class TestDialogue:
    """One person, one terminal."""

    def test_what_it_writes_passes_apply_and_no_secret_is_open_to_others(
        self, tmp_path: Path, script: dict[str, Any], node: SshHost, capsys: pytest.CaptureFixture[str]
    ) -> None:
        operator = Operator(script)
        assert operator.init(str(tmp_path / "site")) == 0
        assert cli.main(["apply", "--check", str(tmp_path / "site" / "site.yml")]) == exits.DONE
        assert "describes site main without a mistake" in capsys.readouterr().out
        shown = fingerprint(node.host_key)
        assert any(shown in prompt for prompt in operator.asked), "the fingerprint is what is confirmed"
        modes = {name: mode for name, (mode, *_) in everything(tmp_path / "site").items()}
        assert modes.pop("keys/id_ed25519.pub") == 0o644
        assert set(modes.values()) == {0o600}
        assert "does not belong on this machine" in operator.screen
        site, _ = inspect_site_file(tmp_path / "site" / "site.yml")
        assert site.failover.fence_command == ["/usr/local/bin/stop-machine", "{node}"]
        text = (tmp_path / "site" / "site.yml").read_text()
        assert "# Two machines." in text
        assert SECRET not in text

    def test_a_second_run_asks_nothing_and_changes_nothing(
        self, tmp_path: Path, script: dict[str, Any]
    ) -> None:
        directory = tmp_path / "site"
        assert Operator(script).init(str(directory)) == 0
        before = everything(directory)
        again = Operator({})
        assert again.init(str(directory)) == 0
        assert everything(directory) == before
        assert "nothing was changed" in again.screen

    def test_only_what_is_missing_is_asked_and_what_the_operator_wrote_stays(
        self, tmp_path: Path, script: dict[str, Any]
    ) -> None:
        directory = tmp_path / "site"
        assert Operator(script).init(str(directory)) == 0
        file = directory / "site.yml"
        lines = [line for line in file.read_text().splitlines() if not line.startswith("  region:")]
        file.write_text("\n".join([*lines, "# mine", "docker:", "  registry_mirrors: []  # none yet", ""]))
        keys = everything(directory)
        again = Operator({"Region": local_oss.REGION})
        assert again.init(str(directory)) == 0
        assert len(again.asked) == 1
        assert "registry_mirrors: []  # none yet" in file.read_text()
        assert {k: v for k, v in everything(directory).items() if k != "site.yml"} == {
            k: v for k, v in keys.items() if k != "site.yml"
        }

    def test_a_conversation_that_breaks_off_goes_on_where_it_was(
        self, tmp_path: Path, script: dict[str, Any]
    ) -> None:
        directory = tmp_path / "site"
        assert Operator({**script, "Name of the OSS": [EOFError]}).init(str(directory)) == 1
        key = (directory / "keys" / "id_ed25519").read_bytes()
        again = Operator(script)
        assert again.init(str(directory)) == 0
        assert not [prompt for prompt in again.asked if prompt.startswith(("Address of", "Short name"))]
        assert (directory / "keys" / "id_ed25519").read_bytes() == key

    def test_a_login_that_is_refused_is_told_and_tested_again(
        self, tmp_path: Path, script: dict[str, Any], authorized: Path
    ) -> None:
        put = script["Enter when it is there"]
        operator = Operator({**script, "Enter when it is there": "", "Enter: test again": [put]})
        assert operator.init(str(tmp_path / "site")) == 0
        assert "did not accept the key for user root" in operator.screen

    def test_a_host_key_that_is_not_confirmed_is_not_written(
        self, tmp_path: Path, script: dict[str, Any]
    ) -> None:
        operator = Operator({**script, "node-b (": "no", "Enter: test again": "k"})
        assert operator.init(str(tmp_path / "site")) == command.INVALID
        nodes = yaml.safe_load((tmp_path / "site" / "site.yml").read_text())["nodes"]
        assert "host_key" in nodes["node-a"]
        assert "host_key" not in nodes["node-b"]

    def test_a_wrong_secret_of_the_bucket_is_told_at_once_and_answered_again(
        self, tmp_path: Path, script: dict[str, Any], oss: OssServer
    ) -> None:
        secrets = ["wrong-secret", local_oss.ACCESS_KEY_SECRET]
        operator = Operator({**script, "AccessKey secret": secrets, "Enter: test again": ["a"]})
        operator.script |= {"Name of the OSS": ["harbor-test", ""], "Region": ["cn-lab", ""]}
        assert operator.init(str(tmp_path / "site")) == 0
        assert "The AccessKey secret does not belong to the AccessKey ID" in operator.screen
        assert not [prompt for prompt in operator.asked if "wrong-secret" in prompt], (
            "a secret is not a default"
        )

    def test_an_answer_that_cannot_be_right_is_asked_again(
        self, tmp_path: Path, script: dict[str, Any]
    ) -> None:
        node_a = script["Address of node-a"]
        operator = Operator(
            {**script, "Host name": ["localhost", A], "Address of node-a": ["127.0.0.1", node_a]}
        )
        assert operator.init(str(tmp_path / "site")) == 0
        assert "localhost sends every client to itself" in operator.screen
        assert "127.0.0.1 means every machine itself" in operator.screen

    def test_a_nas_that_is_not_mounted_is_told_for_each_node(
        self, tmp_path: Path, script: dict[str, Any]
    ) -> None:
        operator = Operator(
            {**script, "Where the NAS": ["/mnt/no-nas-here", NAS], "Enter: test again": ["a"]}
        )
        assert operator.init(str(tmp_path / "site")) == 0
        assert "node-a: Nothing is mounted on /mnt/no-nas-here" in operator.screen
        assert "node-b: Nothing is mounted on /mnt/no-nas-here" in operator.screen

    def test_a_site_without_a_bucket_is_one_and_is_not_asked_again(
        self, tmp_path: Path, script: dict[str, Any]
    ) -> None:
        assert Operator({**script, "Name of the OSS": ""}).init(str(tmp_path / "site")) == 0
        assert not (tmp_path / "site" / "age-identity.txt").exists()
        assert inspect_site_file(tmp_path / "site" / "site.yml")[0].oss is None
        assert Operator({}).init(str(tmp_path / "site")) == 0


class TestOptions:
    """Without a question, for scripts."""

    def words(self, tmp_path: Path, node: SshHost, installer: Path, oss: OssServer) -> list[str]:
        for name, text in (
            ("redis", SECRET),
            ("oss", local_oss.ACCESS_KEY_SECRET),
            ("ssh", ssh_private_key()),
        ):
            (tmp_path / name).write_text(text)
        bucket = [
            "--oss-bucket",
            local_oss.BUCKET,
            "--oss-region",
            local_oss.REGION,
            "--oss-endpoint",
            oss.endpoint,
        ]
        rights = ["--oss-access-key-id", local_oss.ACCESS_KEY_ID]
        nodes = ["--node", f"node-a={A}:{node.port}", "--node", f"node-b={B}:{node.port}"]
        return [
            *(str(tmp_path / "site"), "--yes", *nodes, "--hostname", A, "--balancer-kind", "none"),
            *("--harbor-installer", str(installer), "--redis-host", A, "--nas-path", NAS, *bucket, *rights),
            *("--redis-password-file", str(tmp_path / "redis")),
            *("--oss-access-key-secret-file", str(tmp_path / "oss")),
        ]

    def test_all_is_written_and_what_does_not_work_yet_is_listed(
        self,
        tmp_path: Path,
        node: SshHost,
        authorized: Path,
        installer: Path,
        oss: OssServer,
        redis: int,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """The first run makes the key that nobody could have authorized yet; the second tests what has become of it."""
        words = [*self.words(tmp_path, node, installer, oss), "--redis-port", str(redis)]
        assert Operator({}).init(*words) == command.FAILED
        told = capsys.readouterr().err
        assert "node-a: " in told
        assert "node-b: " in told
        assert "did not accept the key" in told
        authorize(tmp_path / "site", authorized)()
        before = everything(tmp_path / "site")
        assert Operator({}).init(*words) == 0
        after = everything(tmp_path / "site")
        assert {name: after[name] for name in before if name != "site.yml"} == {
            name: before[name] for name in before if name != "site.yml"
        }
        assert cli.main(["apply", "--check", str(tmp_path / "site" / "site.yml")]) == exits.DONE

    def test_a_wrong_password_of_redis_is_told(
        self, tmp_path: Path, node: SshHost, installer: Path, oss: OssServer, redis: int, capsys: Any
    ) -> None:
        words = [*self.words(tmp_path, node, installer, oss), "--redis-port", str(redis)]
        (tmp_path / "redis").write_text("another")
        assert Operator({}).init(*words) == command.FAILED
        told = capsys.readouterr().err
        assert "The password was not accepted" in told
        assert "another" not in told.replace("another safe", "")

    def test_all_mistakes_are_told_at_once_and_nothing_is_written(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--yes", "--node", "node-a=127.0.0.1", "--hostname", "localhost", "--redis-port", "abc"]
        words += ["--certificate", str(tmp_path / "no-such-file")]
        assert Operator({}).init(str(tmp_path / "site"), *words) == command.INVALID
        told = capsys.readouterr().err
        for part in (
            "two nodes are needed",
            "--node node-a",
            "--hostname",
            "--redis-port: abc",
            "no-such-file",
        ):
            assert part in told
        assert "--redis-host: an answer is needed" in told
        assert not (tmp_path / "site").exists()

    def test_a_host_key_other_than_the_given_one_is_refused(
        self,
        tmp_path: Path,
        node: SshHost,
        installer: Path,
        oss: OssServer,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        given = [
            "--host-key",
            f"node-a={fingerprint(ssh_host_key())}",
            "--host-key",
            f"node-b={node.host_key}",
        ]
        assert Operator({}).init(*self.words(tmp_path, node, installer, oss), *given) == command.INVALID
        assert f"answers with the host key {fingerprint(node.host_key)}, not" in capsys.readouterr().err
        nodes = yaml.safe_load((tmp_path / "site" / "site.yml").read_text())["nodes"]
        assert "host_key" not in nodes["node-a"]
        assert nodes["node-b"]["host_key"] == node.host_key

    def test_own_keys_and_certificate_are_taken(
        self, tmp_path: Path, node: SshHost, installer: Path, oss: OssServer
    ) -> None:
        from datetime import UTC, datetime, timedelta

        chain, key = certificate("harbor.example.com", start=datetime.now(UTC) - timedelta(days=1))
        (tmp_path / "crt").write_text(chain)
        (tmp_path / "key").write_text(key)
        words = [
            word if word != A else "harbor.example.com" for word in self.words(tmp_path, node, installer, oss)
        ]
        own = ["--ssh-key", str(tmp_path / "ssh"), "--certificate", str(tmp_path / "crt")]
        own += ["--certificate-key", str(tmp_path / "key"), "--host-key", f"node-a={node.host_key}"]
        assert Operator({}).init(*words, *own, "--host-key", f"node-b={node.host_key}", "--no-tests") == 0
        site, _ = inspect_site_file(tmp_path / "site" / "site.yml")
        assert site.harbor.certificate == chain
        assert site.nodes[0].private_key.get_secret_value() == (tmp_path / "ssh").read_text()


def test_the_pages_command_for_a_script_gives_all_that_is_needed(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text().replace("\\\n", " ")
    (line,) = [
        words for words in re.findall(r"^harbor-ha (init .*)$", page, re.MULTILINE) if "--yes" in words
    ]
    words = arguments.make_parser().parse_args(line.split())
    own = {
        "harbor.installer": tmp_path / "harbor-offline-installer-v2.12.4.tgz",
        "redis.password": tmp_path / "redis",
    }
    for path, file in own.items():
        file.write_text("Redis-secret.1")
        setattr(words, path, str(file))
    given, unreadable = read_given(words)
    assert [*unreadable, *problems_of(given, Draft(tmp_path / "site"), complete=True)] == []
