"""The programs inside the miniature Harbor's image.

Harbor's contract with small means: the same containers, files, tables, API and, above all, the same
habits, also the dangerous ones, because those are what the flows are built to survive.
Runs on the Python that Debian ships (3.11); imports only itself and packages from Debian.
"""
