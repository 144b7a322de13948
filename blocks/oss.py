"""Object storage for the backups."""

from prefect.blocks.core import Block
from pydantic import Field, SecretStr


class OssBucket(Block):
    """A bucket of Alibaba Cloud OSS and the right to use it."""

    _block_type_name = "Harbor HA: OSS Bucket"
    _block_type_slug = "harbor-ha-oss"

    endpoint: str = Field(
        title="Endpoint", description="With scheme, such as https://oss-cn-shanghai-internal.aliyuncs.com"
    )
    region: str = Field(
        title="Region", description="Without `oss-`, such as cn-shanghai; part of the signature"
    )
    bucket: str = Field(title="Bucket", description="Name of the bucket")
    prefix: str = Field(
        default="harbor", title="Prefix", description="Everything is kept under `<prefix>/<site>/`"
    )
    access_key_id: str = Field(
        title="AccessKey ID", description="Of a RAM user that may use this bucket only"
    )
    access_key_secret: SecretStr = Field(title="AccessKey secret", description="Secret of the AccessKey")
    is_cname: bool = Field(
        default=False,
        title="Own domain",
        description="The endpoint is a domain of yours that is bound to the bucket",
    )
    s3_endpoint: str | None = Field(
        default=None,
        title="S3 endpoint",
        description="For WAL, https://; empty: the endpoint with s3. in front, as Alibaba Cloud has it",
    )
    s3_ca: str | None = Field(
        default=None,
        title="S3 authority",
        description="PEM of the CA that signed the S3 endpoint's certificate; empty: the system's",
    )
