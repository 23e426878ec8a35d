"""The measurements that docs/performance.md quotes; each module prints its own."""
