"""The program `coldstream`: one module a command."""
