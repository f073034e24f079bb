"""What runs bodies: the guard and its children, their output, and the checks that only a child may make."""
