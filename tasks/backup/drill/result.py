"""What a drill found, as it is written beside the backup."""

from dataclasses import dataclass, field

from tasks.errors import HarborHaError


class DrillFailed(HarborHaError):
    """The backup cannot be restored as it is."""


@dataclass
class DrillResult:
    """What a drill proved.

    Attributes:
        left_out: what of the databases a restore does not bring back.
        blobs_listed: blobs of the backup that lie in the bucket with the size and ETag that they were stored with.
        crcs_checked: objects whose checksum OSS confirmed.
        manifest_sha256: of the manifest that all this was checked against.
        not_proven: what this drill could not look at.
        findings: everything that is wrong, each in one sentence; empty when the backup is proven.
    """

    backup: str
    started_at: str
    restored_rows: int = 0
    restored_tables: int = 0
    blobs_checked: int = 0
    blob_bytes_checked: int = 0
    configuration_files: int = 0
    links: int = 0
    left_out: list[str] = field(default_factory=list)
    blobs_listed: int = 0
    crcs_checked: int = 0
    manifest_sha256: str = ""
    not_proven: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the backup can be restored."""
        return not self.findings
