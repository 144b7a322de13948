"""A machine of the site, as the orchestrator reaches it."""

from prefect.blocks.core import Block
from pydantic import Field, SecretStr


class SshHost(Block):
    """A machine of a Harbor site, reached over SSH with a private key and a pinned host key.

    Example:
        ```python
        from blocks import SshHost

        node = SshHost(name="node-a", address="10.0.0.11", private_key="…", host_key="ssh-ed25519 AAAA…")
        ```
    """

    _block_type_name = "Harbor HA: SSH Host"
    _block_type_slug = "harbor-ha-ssh-host"

    name: str = Field(title="Name", description="Short name of the node in reports, logs and parameters")
    address: str = Field(
        title="Address", description="IP address or host name; the other nodes use it as well"
    )
    port: int = Field(default=22, ge=1, le=65535, title="SSH port", description="Port of the SSH server")
    user: str = Field(
        default="root", title="SSH user", description="root, or a user who may run `sudo -n` for everything"
    )
    private_key: SecretStr = Field(
        title="Private key", description="OpenSSH or PEM private key without passphrase, the whole text"
    )
    host_key: str = Field(
        title="Host key",
        description="The node's pinned public host key, `ssh-ed25519 AAAA…`; another key is refused",
    )
    runs_harbor: bool = Field(
        default=True, title="Runs Harbor", description="Harbor is installed on this node"
    )
    runs_postgres: bool = Field(
        default=True, title="Runs PostgreSQL", description="The node is the primary or a standby"
    )
    instance_id: str | None = Field(
        default=None,
        title="ECS instance",
        description="i-…, for the kinds aliyun-clb, aliyun-nlb and aliyun-ecs; `address` must be one of its addresses",
    )
