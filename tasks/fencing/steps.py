"""The rungs of the fence that are not the node's own, as Prefect tasks."""

from tasks.balancer import serving
from tasks.fencing import hook
from tasks.operation.timely import timely
from tasks.step import step

fence_by_command = step(timely(hook.fence_by_command), "Fence by the site's command")
drain = step(timely(serving.drain), "Drain the node at the load balancer")
