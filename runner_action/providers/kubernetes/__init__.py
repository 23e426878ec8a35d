"""Kubernetes: the cluster is the cloud, a pod is the machine."""
