"""The store ``clustered-redis``: records in Redis, and copies of them in each process."""
