"""Stage notebooks executed in order, reused or done again. What a stage computes is not its matter."""
