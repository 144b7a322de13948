"""The configuration archive back out of the bucket, and the secrets of Harbor back onto a node."""

import base64
import contextlib
import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field

from blocks import HarborSite
from tasks.backup.format.manifest import Artifact, Manifest
from tasks.backup.restore.fetch import ArtifactDamaged, Origin, opened, unpacked, whole
from tasks.errors import HarborHaError, Refused
from tasks.harbor.on_node import secret_files
from tasks.harbor.secrets import SECRETKEY, TOKEN_KEY, paths, traditional
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged

_SECRET_FILES = node_program(secret_files)

# harbor.yml, keys and certificates are kilobytes; what is larger is not a configuration of ours.
_LARGEST = 256 << 20


@dataclass(frozen=True)
class Configuration:
    """The files of a configuration archive, in memory.

    Attributes:
        files: content by absolute path; never shown, it holds the secrets of the site.
    """

    files: Mapping[str, bytes] = field(repr=False)

    def ending(self, suffix: str) -> bytes | None:
        """The content of the one file whose path ends so: the backed up site may have had other directories."""
        found = [data for path, data in self.files.items() if path.endswith(suffix)]
        return found[0] if len(found) == 1 else None


def read_configuration(origin: Origin, manifest: Manifest) -> Configuration:
    """Fetch, verify and decrypt the configuration archive; nothing is written anywhere.

    Raises:
        ArtifactDamaged: it is not what was backed up, or its secretkey is not the one of the manifest.
        DecryptionFailed: no identity fits.
    """
    artifact = manifest.artifact("configuration")
    where = origin.store.where(origin.backup.key(artifact.name))
    if artifact.plain_size > _LARGEST:
        raise ArtifactDamaged("The configuration archive is too large to be one.", where=where)
    content = whole(origin, lambda: _content(origin, artifact))
    try:
        with unpacked(io.BytesIO(content), artifact.compression) as plain:
            archive = plain.read(_LARGEST)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            files = {
                "/" + member.name.lstrip("/"): source.read()
                for member in tar
                if member.isfile() and (source := tar.extractfile(member)) is not None
            }
    except (tarfile.TarError, OSError, ValueError) as error:
        raise ArtifactDamaged(
            f"The configuration archive cannot be unpacked: {error}.", where=where
        ) from None
    configuration = Configuration(files)
    secretkey = configuration.ending("/secret/keys/secretkey")
    if secretkey is None or hashlib.sha256(secretkey).hexdigest() != manifest.harbor.secretkey_sha256:
        raise ArtifactDamaged(
            "The archive does not hold the secretkey that the manifest names.",
            where=where,
            meaning="With another key, stored passwords would silently decrypt to garbage.",
            remedy="Use another backup.",
        )
    return configuration


def _content(origin: Origin, artifact: Artifact) -> bytes:
    with opened(origin, artifact) as packed:
        return packed.read()


def put_back_secrets(site: HarborSite, host: Host, configuration: Configuration) -> Outcome:
    """Write secretkey and the token key pair where Harbor of this site looks for them.

    Must run before `prepare`, which would otherwise make new ones. An existing file is never overwritten.

    Raises:
        Refused: the node has another secret already.
        ArtifactDamaged: the archive lacks one of them.
    """
    wanted: dict[str, bytes] = {}
    places = paths(site)
    for name, path in places.items():
        data = configuration.ending("/secret/" + path.split("/secret/", 1)[1])
        if data is None:
            raise ArtifactDamaged(f"The configuration archive has no {name}.", remedy="Use another backup.")
        wanted[name] = data
    # A key in another form is the same key, and core reads one form only. One that is none comes back as it was: the
    # site is lost, and the proof at the end says what is wrong with it.
    with contextlib.suppress(HarborHaError):
        wanted[TOKEN_KEY] = traditional(wanted[TOKEN_KEY])
    program = _SECRET_FILES
    seen: dict[str, str | None] = host.python(program, {"look": places})
    fingerprints = {name: secret_files.fingerprint_of(data) for name, data in wanted.items()}
    foreign = [name for name in places if seen[name] not in (None, fingerprints[name])]
    if foreign:
        raise Refused(
            f"{host.name} has secrets of another Harbor.",
            [
                f"{places[name]} differs from the backup's; move it away if nothing needs it."
                for name in foreign
            ],
        )
    missing = [name for name in places if seen[name] is None]
    if not missing:
        return unchanged("secretkey and token keys are those of the backup")
    host.python(
        program, {"place": [(places[name], base64.b64encode(wanted[name]).decode()) for name in missing]}
    )
    return changed(f"put back: {', '.join(missing)}", secretkey=SECRETKEY in missing)
