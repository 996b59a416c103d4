"""What commands share: options, errors, and how output reads on a terminal."""
