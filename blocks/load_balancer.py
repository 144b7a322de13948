"""The load balancer in front of the nodes."""

from typing import Literal

from prefect.blocks.core import Block
from pydantic import Field


class LoadBalancer(Block):
    """The TCP load balancer in front of the nodes, and how a node is taken out of it."""

    _block_type_name = "Harbor HA: Load Balancer"
    _block_type_slug = "harbor-ha-load-balancer"

    kind: Literal["haproxy", "command", "aliyun-clb", "aliyun-nlb", "none"] = Field(
        default="none",
        title="Kind",
        description="haproxy: its runtime API. command: your own programs. aliyun-clb, aliyun-nlb: Alibaba Cloud's "
        "API. none: nodes cannot be drained",
    )
    address: str = Field(title="Address", description="Where clients reach Harbor")
    port: int = Field(default=443, ge=1, le=65535, title="Port", description="Where clients reach Harbor")
    admin_host: str | None = Field(
        default=None, title="Runtime API host", description="Address of HAProxy's runtime API (kind haproxy)"
    )
    admin_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        title="Runtime API port",
        description="TCP port of HAProxy's runtime API",
    )
    backend: str = Field(
        default="harbor",
        title="Backend",
        description="HAProxy backend; its servers have the names of the nodes",
    )
    instance_id: str | None = Field(
        default=None,
        title="Instance",
        description="Of the CLB (lb-…) or NLB (nlb-…); the server group is that of its TCP listener on `port`",
    )
    create_listener: bool = Field(
        default=False,
        title="Create listener",
        description="Let bootstrap make a missing TCP listener on `port` of the CLB or NLB",
    )
    server_group: str | None = Field(
        default=None,
        title="Server group",
        description="Of the listener that bootstrap makes: rsp-… (CLB; empty: its default group) or sgp-… (NLB)",
    )
    drain_command: list[str] | None = Field(
        default=None,
        title="Drain command",
        description="Program and arguments, run on the orchestrator; `{node}` and `{address}` are replaced",
    )
    undrain_command: list[str] | None = Field(
        default=None,
        title="Undrain command",
        description="Brings a node back; `{node}` and `{address}` are replaced",
    )
    status_command: list[str] | None = Field(
        default=None,
        title="Status command",
        description="Prints `up`, `down` or `drained` for a node; `{node}` and `{address}` are replaced",
    )
