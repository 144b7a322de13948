"""The programs inside the miniature Harbor's image.

Harbor's contract with small means: the same containers, files, tables, API and, above all, the same
habits, also the dangerous ones, because those are what the flows are built to survive.
Runs on the Python of the distribution, 3.10 (Ubuntu 22.04) or later; imports only itself and packages from Debian.
"""
