"""The deployment of the example flow."""

from deployments.catalogue import DeploymentEntry

EXAMPLE = DeploymentEntry("example", "tests.unit.example_flow.example", "Does nothing.", ("test",))
