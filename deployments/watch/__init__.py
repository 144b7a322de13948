"""The watcher: looks at every site all the time, calls for a failover, tells Prometheus."""
