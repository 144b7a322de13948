"""Push a small image and pull it back over plain HTTP: the proof that a registry works."""

import gzip
import hashlib
import io
import json
import re
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from blocks.flaw import shown
from tasks.errors import HarborHaError
from tasks.harbor.web import Answer, Endpoint, HarborRefused, Session, same_address

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class WrongContent(HarborHaError):
    """What was pulled is not what was pushed."""


@dataclass(frozen=True)
class Image:
    """A small image, the same bytes for the same content.

    Attributes:
        manifest, config, layer: the three blobs.
    """

    manifest: bytes
    config: bytes
    layer: bytes

    @property
    def digest(self) -> str:
        """The manifest's digest, by which the image is pulled."""
        return digest_of(self.manifest)

    @property
    def blobs(self) -> dict[str, bytes]:
        """Config and layer by digest."""
        return {digest_of(data): data for data in (self.config, self.layer)}


def digest_of(data: bytes) -> str:
    """Name content by its SHA-256."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def make_image(content: bytes) -> Image:
    """Make an image of one layer with one file.

    Args:
        content: the file's content; different content gives an image that shares nothing with others.
    """
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        entry = tarfile.TarInfo("proof")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    # A time stamp in the gzip header would make equal content different.
    layer = gzip.compress(tar.getvalue(), mtime=0)
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Labels": {"harbor-ha.proof": "1"}},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar.getvalue())]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "harbor-ha"}],
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _descriptor(CONFIG, config),
            "layers": [_descriptor(LAYER, layer)],
        }
    )
    return Image(manifest, config, layer)


class Registry:
    """The registry side of Harbor at one address, with its own token for each repository.

    Args:
        endpoint: a node or the load balancer.
        timeout: seconds for each request.
    """

    def __init__(self, endpoint: Endpoint, timeout: float = 15.0) -> None:
        self._session = Session(endpoint, timeout)
        self._tokens: dict[str, str] = {}

    def __enter__(self) -> "Registry":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def push(self, repository: str, tag: str, image: Image) -> str:
        """Push an image: blobs first, then the manifest, as docker does.

        Returns:
            The digest that the registry confirmed.

        Raises:
            HarborRefused, HarborUnreachable: it was not accepted; the image does not exist.
            WrongContent: the registry computed another digest.
        """
        for digest, data in image.blobs.items():
            self._push_blob(repository, digest, data)
        answer = self._ask(repository, "PUT", f"manifests/{tag}", image.manifest, {"Content-Type": MANIFEST})
        self._expect(answer, 201, f"push of {repository}:{tag}")
        confirmed = answer.headers.get("docker-content-digest", image.digest)
        if confirmed != image.digest:
            raise self._wrong(f"{repository}:{tag} was stored as {confirmed} instead of {image.digest}.")
        return confirmed

    def pull(self, repository: str, reference: str) -> Image:
        """Pull an image and check every byte of it against its digests.

        Args:
            repository: `project/name`.
            reference: a digest, or a tag.

        Raises:
            HarborRefused, HarborUnreachable: it cannot be pulled.
            WrongContent: a blob does not have its digest.
        """
        manifest = self._pull(repository, f"manifests/{reference}", reference)
        document = json.loads(manifest)
        config = self._pull_blob(repository, document["config"]["digest"])
        layers = [self._pull_blob(repository, layer["digest"]) for layer in document["layers"]]
        return Image(manifest, config, layers[0])

    def _push_blob(self, repository: str, digest: str, data: bytes) -> None:
        if self._ask(repository, "HEAD", f"blobs/{digest}").status == 200:
            return
        started = self._ask(repository, "POST", "blobs/uploads/", b"")
        self._expect(started, 202, f"start of an upload to {repository}")
        location = started.headers["location"]
        separator = "&" if "?" in location else "?"
        target = f"{location}{separator}digest={quote(digest, safe='')}"
        headers = {"Content-Type": "application/octet-stream"}
        self._expect(self._send(repository, "PUT", target, data, headers), 201, f"upload of {digest}")

    def _pull_blob(self, repository: str, digest: str) -> bytes:
        return self._pull(repository, f"blobs/{digest}", digest)

    def _pull(self, repository: str, path: str, reference: str) -> bytes:
        answer = self._ask(repository, "GET", path, headers={"Accept": MANIFEST})
        if answer.status == 307:
            raise self._wrong(
                f"{path} redirects to another host; set storage_service.redirect for the proof."
            )
        self._expect(answer, 200, f"pull of {path} from {repository}")
        if reference.startswith("sha256:") and digest_of(answer.body) != reference:
            raise self._wrong(f"{reference} of {repository} came back as {digest_of(answer.body)}.")
        return answer.body

    def _ask(
        self,
        repository: str,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        return self._send(repository, method, f"/v2/{repository}/{path}", body, headers)

    def _send(
        self,
        repository: str,
        method: str,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> Answer:
        signed = {**(headers or {}), **self._bearer(repository)}
        answer = self._session.request(method, target, body, signed)
        challenge = answer.headers.get("www-authenticate", "")
        if answer.status == 401 and challenge.startswith("Bearer"):
            self._tokens[repository] = self._new_token(challenge, repository)
            answer = self._session.request(method, target, body, {**signed, **self._bearer(repository)})
        return answer

    def _bearer(self, repository: str) -> dict[str, str]:
        token = self._tokens.get(repository)
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _new_token(self, challenge: str, repository: str) -> str:
        said = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        self._refuse_foreign(said.get("realm", ""))
        scope = quote(f"repository:{repository}:pull,push", safe=":,/")
        target = f"{said['realm']}?service={quote(said.get('service', 'harbor-registry'))}&scope={scope}"
        answer = self._session.request("GET", target, headers=self._session.endpoint.authorization())
        if answer.status == 500:
            raise HarborRefused(
                "The request for a token was answered with 500.",
                500,
                where=f"{self._session.endpoint.address}:{self._session.endpoint.port}",
                meaning="Nobody can log in, pull or push, although Harbor says that it is healthy.",
                remedy="Look at core.log; secret/core/private_key.pem must begin with `BEGIN RSA PRIVATE KEY`.",
            )
        self._expect(answer, 200, "request for a token")
        try:
            document = answer.json()
            return str(document.get("token") or document["access_token"])
        except (ValueError, KeyError, AttributeError):
            raise HarborHaError(
                "The answer to a request for a token has no token.",
                where=f"{self._session.endpoint.address}:{self._session.endpoint.port}",
                remedy="Look at what answers at /service/token there; something may stand before Harbor.",
            ) from None

    def _refuse_foreign(self, realm: str) -> None:
        # A client goes to the realm, wherever that is; asking here all the same would prove nothing for it.
        endpoint = self._session.endpoint
        if same_address(realm, endpoint.told or f"https://{endpoint.hostname}"):
            return
        raise HarborHaError(
            f"Clients are sent to {shown(realm) or 'nowhere'} for their token, and the site is at {endpoint.told}.",
            where=f"{endpoint.address}:{endpoint.port}",
            meaning="They cannot log in, although Harbor says that it is healthy.",
            remedy="Correct external_url in harbor.yml, or harbor.hostname and balancer.port, and run bootstrap.",
        )

    def _expect(self, answer: Answer, status: int, what: str) -> None:
        if answer.status != status:
            endpoint = self._session.endpoint
            raise HarborRefused(
                f"{what} was answered with {answer.status}: {answer.body[:300].decode('utf-8', 'replace')}",
                answer.status,
                where=f"{endpoint.address}:{endpoint.port}",
            )

    def _wrong(self, what: str) -> WrongContent:
        return WrongContent(
            what,
            where=self._session.endpoint.address,
            meaning="The image data behind this node is not what clients pushed.",
            remedy="Check that all nodes have the same NAS, and the NAS itself.",
        )


@dataclass(frozen=True)
class Proof:
    """A push and pulls that succeeded.

    Attributes:
        repository, digest: what was pushed.
        push_s: seconds of the push.
        pull_s: seconds of the pull through each address.
    """

    repository: str
    digest: str
    push_s: float
    pull_s: Mapping[str, float]


def prove(
    push_through: Endpoint, pull_through: Mapping[str, Endpoint], repository: str, content: bytes
) -> Proof:
    """Push an image through one address and pull it through others, byte for byte.

    Args:
        push_through: usually the load balancer.
        pull_through: by name, usually all nodes and the load balancer.
        repository: `project/name`; the project must exist.
        content: what makes the image one of its own.
    """
    image = make_image(content)
    start = time.monotonic()
    with Registry(push_through) as registry:
        registry.push(repository, "latest", image)
    push_s, pull_s = time.monotonic() - start, {}
    for name, endpoint in pull_through.items():
        start = time.monotonic()
        with Registry(endpoint) as registry:
            pulled = registry.pull(repository, image.digest)
        if pulled != image:
            raise WrongContent(f"{repository}@{image.digest} differs when pulled.", where=name)
        pull_s[name] = time.monotonic() - start
    return Proof(repository, image.digest, push_s, pull_s)


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
