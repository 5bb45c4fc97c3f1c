"""Parts are the pieces that several workflows are made of."""
