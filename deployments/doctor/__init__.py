"""`harbor-ha doctor`: every link of the chain that makes a failover by itself, tried without harm."""
