"""What an operator configures: Prefect Blocks, the site file, and where both are kept."""

from blocks.aliyun import AliyunAccount
from blocks.docker import DockerOptions
from blocks.harbor import HarborRelease
from blocks.load_balancer import LoadBalancer
from blocks.nas import NasVolume
from blocks.oss import OssBucket
from blocks.policies import BackupPolicy, FailoverPolicy
from blocks.postgres import PostgresPair, Role
from blocks.problems import Problem, SiteFileInvalid, SiteUnknown
from blocks.redis import RedisServer
from blocks.site import HarborSite
from blocks.site_file import read_site_file
from blocks.ssh_host import SshHost
from blocks.store import load_site, save_site

BLOCKS = (
    SshHost,
    PostgresPair,
    HarborRelease,
    RedisServer,
    NasVolume,
    LoadBalancer,
    OssBucket,
    AliyunAccount,
    DockerOptions,
    FailoverPolicy,
    BackupPolicy,
    HarborSite,
)
"""Every Block type, parts before the whole: they are registered in this order."""

__all__ = [
    "BLOCKS",
    "AliyunAccount",
    "BackupPolicy",
    "DockerOptions",
    "FailoverPolicy",
    "HarborRelease",
    "HarborSite",
    "LoadBalancer",
    "NasVolume",
    "OssBucket",
    "PostgresPair",
    "Problem",
    "RedisServer",
    "Role",
    "SiteFileInvalid",
    "SiteUnknown",
    "SshHost",
    "load_site",
    "read_site_file",
    "save_site",
]
