"""The account at Alibaba Cloud by which load balancers are told and machines are switched off."""

from prefect.blocks.core import Block
from pydantic import Field, SecretStr


class AliyunAccount(Block):
    """Where the site's machines and load balancer are at Alibaba Cloud, and the right to tell them."""

    _block_type_name = "Harbor HA: Alibaba Cloud"
    _block_type_slug = "harbor-ha-aliyun"

    region: str = Field(title="Region", description="Of machines and load balancer, such as cn-shanghai")
    access_key_id: str | None = Field(
        default=None,
        title="AccessKey ID",
        description="Of a RAM user; empty: the SDK's default chain, such as the RAM role of the orchestrator's ECS",
    )
    access_key_secret: SecretStr | None = Field(
        default=None, title="AccessKey secret", description="Secret of the AccessKey"
    )
    ecs_endpoint: str | None = Field(
        default=None,
        title="ECS endpoint",
        description="Of the ECS API, such as ecs-vpc.cn-shanghai.aliyuncs.com; empty: the region's public one",
    )
    balancer_endpoint: str | None = Field(
        default=None,
        title="Load balancer endpoint",
        description="Of the CLB or NLB API, such as nlb-vpc.cn-shanghai.aliyuncs.com; empty: the region's public one",
    )
