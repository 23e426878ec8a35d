"""What several commands do with runners and their machines: look up, create, await, reuse, search
for, and roll back."""
