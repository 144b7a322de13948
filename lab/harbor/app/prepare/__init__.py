"""The program inside the prepare image: harbor.yml in, configuration files out."""
