"""What concerns the machines themselves, as Prefect tasks."""

from tasks.hosts import nas
from tasks.step import step

mount_nas = step(nas.mount, "Mount the NAS")
prove_nas = step(nas.prove, "Prove that all nodes see one NAS")
