"""The miniature Harbor's pure parts: tokens, credentials, manifests, migrations, image archives."""

import io
import json
import tarfile
import threading
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from lab.harbor import archive
from lab.harbor.app import cipher, logserver, manifests, migrate, passwords, registryctl, tokens
from lab.harbor.app.health import Checker, overall
from lab.harbor.app.settings import DatabaseSettings, RedisSettings, duration
from lab.harbor.app.web import Body, Refused, Response, Routes

NOW = 1_700_000_000
DIGEST = "sha256:" + "ab" * 32


@pytest.fixture(scope="module")
def signing_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def test_a_token_of_one_core_is_believed_by_another_with_the_same_key(signing_key: rsa.RSAPrivateKey) -> None:
    access = tokens.Access("repository", "library/app", ("pull", "push"))
    token = tokens.issue(signing_key, "admin", [access], NOW)
    assert tokens.verify(signing_key, token, NOW + 60) == ("admin", [access])


def test_a_token_of_a_core_with_another_key_is_refused(signing_key: rsa.RSAPrivateKey) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with pytest.raises(tokens.BadToken):
        tokens.verify(other, tokens.issue(signing_key, "admin", [], NOW), NOW)


@pytest.mark.parametrize("later", [tokens.LIFETIME, -tokens.LEEWAY - 1])
def test_a_token_is_refused_outside_its_time(signing_key: rsa.RSAPrivateKey, later: int) -> None:
    token = tokens.issue(signing_key, "admin", [], NOW)
    with pytest.raises(tokens.BadToken):
        tokens.verify(signing_key, token, NOW + later)


@pytest.mark.parametrize("damage", ["", "a.b", "a.b.c"])
def test_what_is_no_token_is_refused(signing_key: rsa.RSAPrivateKey, damage: str) -> None:
    with pytest.raises(tokens.BadToken):
        tokens.verify(signing_key, damage, NOW)


def test_scopes_are_read_with_slashes_in_the_name_and_nonsense_is_none() -> None:
    found = tokens.Access.parse("repository:library/team/app:pull,push")
    assert found == tokens.Access("repository", "library/team/app", ("pull", "push"))
    assert tokens.Access.parse("nonsense") is None


def test_a_credential_is_read_back_with_the_same_secretkey() -> None:
    sealed = cipher.encrypt("p@ss wörd, long enough for two blocks", "0123456789abcdef")
    assert sealed.startswith("<enc-v1>")
    assert cipher.decrypt(sealed, "0123456789abcdef") == "p@ss wörd, long enough for two blocks"


def test_a_credential_cannot_be_read_with_the_secretkey_of_another_node() -> None:
    sealed = cipher.encrypt("secret", "0123456789abcdef")
    with pytest.raises(cipher.WrongKey):
        cipher.decrypt(sealed, "fedcba9876543210")


def test_the_same_credential_is_sealed_differently_each_time() -> None:
    assert cipher.encrypt("secret", "0123456789abcdef") != cipher.encrypt("secret", "0123456789abcdef")


def test_a_password_is_kept_only_as_a_salted_digest() -> None:
    salt = passwords.new_salt()
    stored = passwords.digest("Harbor12345", salt)
    assert "Harbor12345" not in stored
    assert passwords.matches("Harbor12345", salt, stored)
    assert not passwords.matches("harbor12345", salt, stored)
    assert not passwords.matches("Harbor12345", "", stored)


def _manifest(**changes: object) -> bytes:
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": manifests.OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 7},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": DIGEST, "size": 11}],
    }
    return json.dumps({**document, **changes}).encode()


def test_a_manifest_counts_its_config_its_layers_and_itself() -> None:
    body = _manifest()
    parsed = manifests.parse(body, "ignored/type")
    assert parsed.size == len(body) + 7 + 11
    assert [blob.size for blob in parsed.blobs] == [7, 11]
    assert parsed.media_type == manifests.OCI_MANIFEST


def test_an_index_names_its_children_with_their_platform() -> None:
    child = {"digest": DIGEST, "size": 3, "platform": {"architecture": "arm64"}}
    body = json.dumps({"schemaVersion": 2, "manifests": [child]}).encode()
    parsed = manifests.parse(body, manifests.OCI_INDEX + "; charset=utf-8")
    assert parsed.media_type == manifests.OCI_INDEX
    assert parsed.children[0].platform == '{"architecture": "arm64"}'


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"config": {}}', b'{"layers": []}', b"\xff"])
def test_a_body_that_is_no_manifest_is_refused(body: bytes) -> None:
    with pytest.raises(manifests.BadManifest):
        manifests.parse(body, manifests.OCI_MANIFEST)


def test_a_new_database_gets_all_migrations_and_a_current_one_none() -> None:
    known = migrate.steps(160)
    assert migrate.pending(known, None, dirty=False) == known
    assert migrate.pending(known, known[-1].version, dirty=False) == []
    assert known[-1].version == 160


def test_a_dirty_schema_stops_core_with_harbors_words() -> None:
    with pytest.raises(
        migrate.MigrationFailed, match=r"Dirty database version 160\. Fix and force version\."
    ):
        migrate.pending(migrate.steps(160), 160, dirty=True)


def test_a_newer_schema_stops_an_older_core() -> None:
    with pytest.raises(migrate.MigrationFailed, match="no migration found for version 180"):
        migrate.pending(migrate.steps(160), 180, dirty=False)


def test_one_sick_component_makes_the_whole_answer_unhealthy() -> None:
    well, sick = {"name": "core", "status": "healthy"}, {"name": "redis", "status": "unhealthy"}
    assert overall([well])["status"] == "healthy"
    assert overall([well, sick])["status"] == "unhealthy"


def test_a_check_that_hangs_is_not_reported_as_its_last_success() -> None:
    ended = threading.Event()

    def hang() -> None:
        ended.wait(10)

    checker = Checker("database", hang, patience=0.01)
    try:
        deadline = time.monotonic() + 5
        while "no answer" not in checker.report().get("error", "") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert checker.report() == {"name": "database", "status": "unhealthy", "error": "no answer in 0 s"}
    finally:
        ended.set()


def test_json_goes_out_without_spaces_because_load_balancers_match_its_words() -> None:
    assert Response.of({"status": "healthy"}).body == b'{"status":"healthy"}'


def test_a_chunked_body_is_read_to_its_end_and_no_further() -> None:
    stream = io.BytesIO(b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\nGET /next")
    body = Body(stream, {"Transfer-Encoding": "chunked"})
    assert b"".join(body) == b"hello world"
    assert stream.read() == b"GET /next"


def test_a_client_that_goes_away_in_a_body_is_an_error_not_a_short_blob() -> None:
    with pytest.raises(ConnectionError):
        b"".join(Body(io.BytesIO(b"abc"), {"Content-Length": "10"}))


def test_a_body_longer_than_the_limit_is_refused() -> None:
    with pytest.raises(Refused) as refusal:
        Body(io.BytesIO(b"x" * 20), {"Content-Length": "20"}).read(limit=10)
    assert refusal.value.status == 413


def test_routes_tell_an_unknown_path_from_a_method_that_is_not_allowed() -> None:
    routes = Routes()
    routes.add("GET", r"/projects/(?P<name>[^/]+)", lambda **_: Response())
    assert routes.resolve("GET", "/projects/a%252Fb")[1] == {"name": "a/b"}
    for method, path, status in (("POST", "/projects/a", 405), ("GET", "/other", 404)):
        with pytest.raises(Refused) as refusal:
            routes.resolve(method, path)
        assert refusal.value.status == status


def test_go_durations_and_redis_addresses_are_read() -> None:
    assert duration("5m").total_seconds() == 300
    assert duration("0").total_seconds() == 0
    found = RedisSettings.from_url("redis://:p%40ss@cache:6380/2?idle_timeout_seconds=30")
    assert found == RedisSettings("cache", 6380, "p@ss", 2)
    assert RedisSettings.from_url("redis://redis:6379?idle_timeout_seconds=30").db == 0


def test_jobservice_gets_the_database_address_that_core_has() -> None:
    settings = DatabaseSettings("10.0.0.1", 5432, "harbor", "word", "registry")
    assert DatabaseSettings.from_config(settings.as_config()) == settings


def test_registryctl_deletes_a_blob_and_the_links_of_a_manifest(tmp_path: Path) -> None:
    blob = registryctl.blob_directory(tmp_path, DIGEST)
    blob.mkdir(parents=True)
    tag = tmp_path / "repositories/library/app/_manifests/tags/v1/current"
    tag.mkdir(parents=True)
    (tag / "link").write_text(DIGEST)
    revision = tmp_path / "repositories/library/app/_manifests/revisions/sha256" / blob.name
    revision.mkdir(parents=True)
    assert registryctl.delete_blob(tmp_path, DIGEST)
    assert registryctl.delete_manifest(tmp_path, "library/app", DIGEST)
    assert not blob.exists()
    assert not revision.exists()
    assert not tag.parent.exists()
    assert not registryctl.delete_blob(tmp_path, DIGEST)


@pytest.mark.parametrize("digest", ["sha256:../../etc", "sha512:" + "a" * 64, "", "sha256:" + "A" * 64])
def test_registryctl_refuses_what_is_not_a_digest(tmp_path: Path, digest: str) -> None:
    with pytest.raises(Refused):
        registryctl.delete_blob(tmp_path, digest)


def test_a_syslog_line_goes_to_the_file_of_its_service(tmp_path: Path) -> None:
    tag, text = logserver.parse("<30>Nov 22 13:11:46 core[1234]: started")
    assert (tag, text) == ("core", "Nov 22 13:11:46 core: started")
    logserver.append(tmp_path, tag, text)
    logserver.append(tmp_path, tag, text, limit=1)
    assert (tmp_path / "core.log").read_text() == text + "\n"
    assert (tmp_path / "core.log.1").read_text() == text + "\n"


def test_an_image_archive_holds_a_common_layer_once(tmp_path: Path) -> None:
    content = tmp_path / "layer.tar"
    with tarfile.open(content, "w") as tar:
        archive.add_bytes(tar, "hello", b"world")
    layer = archive.Layer("base", content)
    images = [archive.Image(f"goharbor/{name}:v1", [layer], [name]) for name in ("core", "portal")]
    target = io.BytesIO()
    archive.write(images, target, "amd64")
    with tarfile.open(fileobj=io.BytesIO(target.getvalue())) as tar:
        names = tar.getnames()
        file = tar.extractfile("manifest.json")
        assert file is not None
        manifest = json.load(file)
        first = tar.extractfile(manifest[0]["Config"])
        assert first is not None
        config = json.load(first)
    assert names.count("base/layer.tar") == 1
    assert [image["RepoTags"] for image in manifest] == [["goharbor/core:v1"], ["goharbor/portal:v1"]]
    assert config["rootfs"]["diff_ids"] == [layer.diff_id()]
    assert config["config"]["Cmd"] == ["core"]
