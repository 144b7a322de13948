"""What may be done automatically, and when."""

from typing import Literal

from prefect.blocks.core import Block
from pydantic import Field, SecretStr


class FailoverPolicy(Block):
    """What the automatic path may do when the primary is lost."""

    _block_type_name = "Harbor HA: Failover Policy"
    _block_type_slug = "harbor-ha-failover"

    fencing: Literal["confirmed", "witnesses"] = Field(
        default="confirmed",
        title="Fencing",
        description="confirmed: promote only when the old primary is proven to be cut off. witnesses: also "
        "when it is drained and every witness has lost it",
    )
    fence_kind: Literal["command", "aliyun-ecs"] = Field(
        default="command",
        title="Fence kind",
        description="How a node is switched off. command: by `fence_command`, if there is one. aliyun-ecs: its ECS "
        "instance is stopped by force",
    )
    fence_command: list[str] | None = Field(
        default=None,
        title="Fence command",
        description="Program and arguments, run on the orchestrator; `{node}` and `{address}` are replaced. "
        "Status 0 means: the node is certainly off",
    )
    restart_first: bool = Field(
        default=True,
        title="Restart first",
        description="Try to start PostgreSQL again when its host is alive",
    )
    restart_budget_s: int = Field(
        default=30, ge=1, le=600, title="Restart budget", description="Seconds for that before failing over"
    )
    max_lag_bytes: int = Field(
        default=1 << 20,
        ge=0,
        title="Maximum lag",
        description="Bytes of WAL that an automatic failover may lose; beyond that it refuses",
    )
    cooldown_s: int = Field(
        default=600, ge=0, title="Cooldown", description="Seconds between two automatic failovers"
    )
    call_after_s: float = Field(
        default=3.0,
        ge=2.0,
        le=60.0,
        title="Call after",
        description="Seconds of trouble with the primary after which the watcher calls for a failover",
    )
    silence_s: float = Field(
        default=1.0,
        ge=1.0,
        le=10.0,
        title="Silence",
        description="Seconds between the beginnings of two looks that a primary must not have answered to be taken for "
        "gone or hung",
    )
    check_every_s: int = Field(
        default=900,
        ge=60,
        le=86400,
        title="Check",
        description="Seconds between two thorough checks with a real write; the watcher looks all the time",
    )
    self_fence_s: int | None = Field(
        default=None,
        ge=5,
        title="Self-fence",
        description="Seconds after which an isolated primary stops itself; empty: never",
    )
    repoint: Literal["edit", "prepare"] = Field(
        default="edit",
        title="Repoint",
        description="edit: change the database host in place. prepare: run Harbor's own ./prepare, slower",
    )

    @property
    def switches_off(self) -> bool:
        """Whether the site can switch a node off by itself."""
        return self.fence_kind == "aliyun-ecs" or bool(self.fence_command)


class BackupPolicy(Block):
    """When backups are made, for whom they are encrypted, and how long they are kept."""

    _block_type_name = "Harbor HA: Backup Policy"
    _block_type_slug = "harbor-ha-backup"

    cron: str = Field(
        default="0 2 * * *", title="Schedule", description="Cron expression of the nightly backup"
    )
    drill_cron: str = Field(
        default="0 5 * * 0", title="Drill schedule", description="Cron expression of the restore drill"
    )
    timezone: str = Field(
        default="Asia/Shanghai",
        title="Time zone",
        description="Of both schedules, a name such as Europe/Berlin",
    )
    age_recipients: list[str] = Field(
        default_factory=list,
        title="age recipients",
        description="Public keys (age1… or ssh-ed25519 …) that the backups are encrypted for",
    )
    age_identity: SecretStr | None = Field(
        default=None,
        title="age identity",
        description="AGE-SECRET-KEY-1… for restore drills; without it a drill decrypts nothing and says so",
    )
    signing_secret: SecretStr | None = Field(
        default=None,
        title="Signing secret",
        description="Proves that a backup is the orchestrator's own: 64 hexadecimal digits, one line a key, the first "
        "signs. Empty: `apply` makes one",
    )
    missing_percent: int = Field(
        default=20,
        ge=0,
        le=100,
        title="Missing images",
        description="Percent of the blobs that may be missing at the source; with more the night fails",
    )
    keep_daily: int = Field(default=7, ge=0, title="Daily", description="Days with a backup that are kept")
    keep_weekly: int = Field(default=4, ge=0, title="Weekly", description="Weeks with a backup that are kept")
    keep_monthly: int = Field(
        default=12, ge=0, title="Monthly", description="Months with a backup that are kept"
    )
    keep_yearly: int = Field(default=2, ge=0, title="Yearly", description="Years with a backup that are kept")
    keep_at_least: int = Field(
        default=3,
        ge=1,
        title="At least",
        description="Newest backups that are never removed, whatever their age",
    )
    traffic_limit_bytes_s: int | None = Field(
        default=None,
        ge=102400,
        title="Bandwidth",
        description="Bytes a second to OSS, at least 102400; empty: no limit",
    )
    time_budget_s: int | None = Field(
        default=None,
        ge=60,
        title="Time budget",
        description="Seconds for copying images; the rest follows the next night. Empty: no limit",
    )
    wal_archive: Literal["disk", "oss"] = Field(
        default="disk",
        title="WAL archive",
        description="disk: a week on each node's own disk, for rejoin; no backup. oss: also in the bucket, to "
        "recover to a point in time",
    )
    wal_passphrase: SecretStr | None = Field(
        default=None,
        title="WAL passphrase",
        description="Encrypts WAL and base backups in the bucket; required with wal_archive oss, never change it",
    )
    wal_queue_max_bytes: int = Field(
        default=8 << 30,
        ge=128 << 20,
        title="WAL queue",
        description="Bytes of WAL that may wait for the bucket; what is more is left out of it, with a gap",
    )
    base_cron: str = Field(
        default="0 4 * * 6", title="Base backup", description="Cron expression of the base backup"
    )
    keep_base_backups: int = Field(
        default=4, ge=2, title="Base backups", description="Base backups that are kept, with the WAL since"
    )
