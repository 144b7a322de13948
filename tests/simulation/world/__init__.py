"""The simulated world: machines, PostgreSQL, paths, load balancer, Redis, and what programs see of them."""
