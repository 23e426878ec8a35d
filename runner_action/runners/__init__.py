"""What several commands do with runners and their machines: looking up, placing, waiting, reusing,
rolling back."""
