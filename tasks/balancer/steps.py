"""The load balancer's steps as Prefect tasks."""

from tasks.balancer import serving
from tasks.step import step

admit = step(serving.admit, "Serve the node through the load balancer")
