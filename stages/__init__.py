"""The commands: one a file, each parses, calls the library once, and writes what came out."""
