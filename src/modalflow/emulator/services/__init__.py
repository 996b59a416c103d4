"""Modal's smaller resources: Dicts, Secrets, environments, mounts, blobs, buckets."""
