"""Microsoft Azure: `credentials` says who the launch is. Machines come with the provider."""
