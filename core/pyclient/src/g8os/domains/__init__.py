"""The commands of a node, a file per domain."""
