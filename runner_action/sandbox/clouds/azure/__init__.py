"""Azure: Resource Manager and Entra."""
