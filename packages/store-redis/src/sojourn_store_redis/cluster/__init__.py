"""Redis Cluster: which primary serves which slot, and the transport that asks it."""
