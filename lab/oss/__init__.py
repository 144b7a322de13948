"""An OSS server for the lab and the tests: it speaks what oss2 speaks and can be told to fail.

Standard library only, and nothing outside this package: in the lab it runs in a container that has
Debian's python3 and nothing else.
"""
