"""The load balancer's steps as Prefect tasks."""

from tasks.balancer import serving
from tasks.operation.timely import timely
from tasks.step import step

undrain = step(timely(serving.undrain), "End the drain at the load balancer")
end_drain = step(timely(serving.end_drain), "See that the node is not drained")
hurry = step(serving.hurry, "Do not wait for the load balancer's checks")
listen = step(serving.listen, "Listen at the load balancer")
drain_others = step(serving.drain_others, "Drain everybody else at the load balancer")
admit = step(timely(serving.admit), "Serve the node through the load balancer")
