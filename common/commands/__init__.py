"""What is started with `python -m common.<command>`. May import all of common."""
