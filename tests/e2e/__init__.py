"""End-to-end tests. They are a package, so that package fixtures end with its last test."""
