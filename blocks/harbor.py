"""The Harbor installation."""

from prefect.blocks.core import Block
from pydantic import Field, SecretStr


class HarborRelease(Block):
    """The Harbor installation, the same on every node: release, host name, TLS, directories."""

    _block_type_name = "Harbor HA: Harbor Release"
    _block_type_slug = "harbor-ha-harbor"

    installer: str = Field(
        title="Installer",
        description="Offline installer: path of a file on the orchestrator, or an https:// address",
    )
    sha256: str = Field(title="SHA-256", description="Checksum of the installer, 64 hexadecimal digits")
    version: str = Field(title="Version", description="Harbor version of the installer, such as v2.12.4")
    hostname: str = Field(
        title="Host name", description="The name clients use: the load balancer's, equal on all nodes"
    )
    certificate: str = Field(
        title="Certificate", description="PEM chain for the host name, server certificate first"
    )
    certificate_key: SecretStr = Field(
        title="Certificate key", description="PEM private key of the certificate"
    )
    admin_password: SecretStr = Field(
        title="Admin password",
        description="8 to 128 characters: upper and lower case, a digit; used at the first start only",
    )
    components: list[str] = Field(
        default_factory=list, title="Components", description="Optional parts: trivy, notary, chartmuseum"
    )
    install_dir: str = Field(
        default="/opt/harbor", title="Installation directory", description="Where compose and harbor.yml live"
    )
    data_volume: str = Field(
        default="/data/harbor",
        title="Data volume",
        description="Harbor's local data directory; images lie on the NAS. No spaces, quotes or #",
    )
    http_port: int = Field(
        default=80, ge=1, le=65535, title="HTTP port", description="Harbor's HTTP port on the nodes"
    )
    https_port: int = Field(
        default=443, ge=1, le=65535, title="HTTPS port", description="Harbor's HTTPS port on the nodes"
    )
    network: str = Field(
        default="10.213.48.0/24",
        title="Container network",
        description="Subnet of Harbor's containers, equal on all nodes and used nowhere else",
    )
    migrate_from_bundled: bool = Field(
        default=False,
        title="Migrate from bundled database",
        description="Take over the data of a Harbor that runs with its own database container",
    )
