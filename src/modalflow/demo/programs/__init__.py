"""The programs that the demo starts, and the guard that ends them."""
