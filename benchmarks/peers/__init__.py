"""Patroni and pg_auto_failover from Debian's packages on the lab's nodes: how long their database is away.

`python -m benchmarks peers` measures all of them; `python -m benchmarks.peers patroni-default` one.
"""
