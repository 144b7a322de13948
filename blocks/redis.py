"""The shared Redis."""

from prefect.blocks.core import Block
from pydantic import Field, SecretStr


class RedisServer(Block):
    """The Redis that all Harbor nodes share."""

    _block_type_name = "Harbor HA: Redis Server"
    _block_type_slug = "harbor-ha-redis"

    host: str = Field(title="Host", description="Address as the Harbor nodes reach it")
    port: int = Field(default=6379, ge=1, le=65535, title="Port", description="Redis port")
    password: SecretStr = Field(
        title="Password", description="Letters, digits and _ . ~ - only; starts with a letter or digit"
    )
    registry_db: int = Field(
        default=1, ge=1, le=15, title="Registry database", description="Index for the registry"
    )
    jobservice_db: int = Field(
        default=2, ge=1, le=15, title="Jobservice database", description="Index for jobs"
    )
    chartmuseum_db: int = Field(
        default=3,
        ge=1,
        le=15,
        title="ChartMuseum database",
        description="Index for charts (Harbor up to 2.7)",
    )
    trivy_db: int = Field(default=5, ge=1, le=15, title="Trivy database", description="Index for the scanner")
