"""Bounds of issue 4, measured on this machine: `python -m benchmarks NAME`, or `make bench` for all of them.

No lab: the node is this machine, OSS is the lab's server in a process of its own on loopback.
"""
