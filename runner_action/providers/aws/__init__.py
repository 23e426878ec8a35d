"""Amazon EC2: `plan` decides without the network, `client` makes the calls, `errors` translates
what comes back."""
